// Every request of the studio goes through here: typed by the server's own document, errors as sentences.

import createClient from 'openapi-fetch';

import { newId } from '../lib/id';
import type { components, paths } from './schema';

export type Schema = components['schemas'];
export type Job = Schema['Job'];
export type Project = Schema['Project'];
export type Artifact = Schema['Artifact'];
export type Asked = Job['asked'];
export type TrainJob = Schema['TrainJob'];

export const API = '/api/v1';
export const http = createClient<paths>({ baseUrl: '' });

/** What went wrong, in the server's words. `field` is what it is about, where it is one. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly field?: string,
  ) {
    super(detail || title);
  }
}

interface Problem {
  title?: string;
  detail?: string;
  errors?: { path?: string; detail?: string }[];
}

/** The answer's data; anything else is thrown, as a Refusal. */
export async function told<T>(
  answer: Promise<{ data?: T; error?: unknown; response: Response }>,
): Promise<T> {
  let found;
  try {
    found = await answer;
  } catch {
    throw new Refusal(0, 'No connection', 'The server does not answer. Is it still running?');
  }
  if (found.response.ok) return found.data as T;
  const problem = (found.error ?? {}) as Problem;
  const first = problem.errors?.[0];
  throw new Refusal(
    found.response.status,
    problem.title ?? `Error ${found.response.status}`,
    first?.detail && problem.errors?.length === 1
      ? `${first.path ?? ''}: ${first.detail}`
      : (problem.detail ?? ''),
    first?.path?.replace(/^\$\./, ''),
  );
}

/** A job into the queue; the key makes it one job, however often a bad connection sends it. */
export function ask(project: string, asked: Asked, needs: string[] = []): Promise<Job> {
  return told(
    http.POST('/api/v1/projects/{project}/jobs', {
      params: {
        path: { project },
        query: { needs },
        header: { 'Idempotency-Key': newId() },
      },
      body: asked,
    }),
  ) as Promise<Job>;
}
