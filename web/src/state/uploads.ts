// Files on their way to the server, a few at a time. A connection that breaks is waited for; what has arrived is kept.

import { create } from 'zustand';

import { API } from '../api/client';
import type { Found } from '../lib/droppedFiles';

export interface Sending {
  project: string;
  files: number;
  done: number; // files
  bytes: number;
  sent: number;
  failed: { name: string; why: string }[];
}

const AT_ONCE = 3;
const RETRIES = [500, 1000, 2000, 4000, 8000, 15_000, 30_000];
const PHOTOS = /\.(jpe?g|png|webp|tiff?|heic|heif)$/i;
const OTHERS = /\.(zip|mp4|mov|m4v|mkv|webm|avi|json|txt|bin|ply|npy)$/i;

export const useSendings = create<Record<string, Sending>>(() => ({}));

/** What can be sent of it, without the folder that all of it lies in. */
export function taken(found: Found[]): Found[] {
  const fit = found.filter(
    ({ name }) =>
      (PHOTOS.test(name) || OTHERS.test(name)) && !name.split('/').some((part) => part.startsWith('.')),
  );
  const top = fit[0]?.name.split('/')[0];
  const shared = top !== undefined && fit.every(({ name }) => name.startsWith(`${top}/`));
  return shared ? taken(fit.map(({ file, name }) => ({ file, name: name.slice(top.length + 1) }))) : fit;
}

/** Sends all of them; resolves when every one has arrived or failed for good. */
export async function send(project: string, found: Found[]): Promise<Sending> {
  const bytes = found.reduce((sum, { file }) => sum + file.size, 0);
  const sending: Sending = { project, files: found.length, done: 0, bytes, sent: 0, failed: [] };
  const show = () => useSendings.setState({ [project]: { ...sending } });
  show();
  const leave = (event: BeforeUnloadEvent) => event.preventDefault();
  addEventListener('beforeunload', leave);
  const waiting = [...found];
  const worker = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const { name } = next;
      let before = 0;
      try {
        await one(project, next, (sent) => {
          sending.sent += sent - before;
          before = sent;
          show();
        });
      } catch (error) {
        sending.failed.push({ name, why: reason(error) });
      }
      sending.done++;
      show();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  removeEventListener('beforeunload', leave);
  if (!sending.failed.length) useSendings.setState((all) => rest(all, project), true);
  return sending;
}

export const forget = (project: string): void => useSendings.setState((all) => rest(all, project), true);

const rest = (all: Record<string, Sending>, project: string) =>
  Object.fromEntries(Object.entries(all).filter(([id]) => id !== project));

async function one(project: string, { file, name }: Found, onSent: (bytes: number) => void): Promise<void> {
  const { Upload } = await import('tus-js-client');
  return new Promise((resolve, reject) => {
    const upload = new Upload(file, {
      endpoint: `${API}/projects/${project}/uploads?overwrite=true`,
      metadata: { filename: name, overwrite: 'true' },
      retryDelays: RETRIES,
      storeFingerprintForResuming: true,
      removeFingerprintOnSuccess: true,
      fingerprint: () => Promise.resolve(`lumigraph-${project}-${name}-${file.size}-${file.lastModified}`),
      onProgress: onSent,
      onSuccess: () => resolve(),
      onError: reject,
    });
    // A page that was closed in the middle of it goes on where it was.
    void upload.findPreviousUploads().then(([known]) => {
      if (known) upload.resumeFromPreviousUpload(known);
      upload.start();
    });
  });
}

/** The server's own words, where it said any. */
function reason(error: unknown): string {
  const answer = (error as { originalResponse?: { getBody(): string } | null }).originalResponse;
  try {
    const problem = JSON.parse(answer?.getBody() ?? '') as { title?: string; detail?: string };
    return problem.detail ?? problem.title ?? String(error);
  } catch {
    return answer ? String(error) : 'the connection was lost';
  }
}
