// The API client: requests typed by the OpenAPI document, errors as sentences.

import createClient from 'openapi-fetch';

import { newId } from '../lib/id';
import type { components, paths } from './schema';

export type Schema = components['schemas'];
export type Job = Schema['Job'];
export type Project = Schema['Project'];
export type Artifact = Schema['Artifact'];
export type JobRequest = Job['asked'];
export type TrainJob = Schema['TrainJob'];

export const API = '/api/v1';
export const http = createClient<paths>({ baseUrl: '' });

/** An error response of the server. `field`: the request field in question, if there is one. */
export class ApiError extends Error {
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

/** Returns the data of a response. Throws ApiError for an error response or a lost connection. */
export async function unwrap<T>(
  answer: Promise<{ data?: T; error?: unknown; response: Response }>,
): Promise<T> {
  let found;
  try {
    found = await answer;
  } catch {
    throw new ApiError(0, 'No connection', 'The server does not answer. Is it still running?');
  }
  if (found.response.ok) return found.data as T;
  const problem = (found.error ?? {}) as Problem;
  const first = problem.errors?.[0];
  throw new ApiError(
    found.response.status,
    problem.title ?? `Error ${found.response.status}`,
    first?.detail && problem.errors?.length === 1
      ? `${first.path ?? ''}: ${first.detail}`
      : (problem.detail ?? ''),
    first?.path?.replace(/^\$\./, ''),
  );
}

/** Submits a job. The idempotency key makes repeated requests one job. */
export function submitJob(project: string, asked: JobRequest, needs: string[] = []): Promise<Job> {
  return unwrap(
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
