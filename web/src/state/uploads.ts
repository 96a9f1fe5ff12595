// Uploads, a few at a time. A broken connection is retried; received bytes are kept.

import { create } from 'zustand';

import { API } from '../api/client';
import type { NamedFile } from '../lib/droppedFiles';

export interface Upload {
  project: string;
  files: number;
  done: number; // files
  bytes: number;
  sent: number;
  failed: { name: string; why: string }[];
}

const CONCURRENT_UPLOADS = 3;
const RETRY_DELAYS_MS = [500, 1000, 2000, 4000, 8000, 15_000, 30_000];
const PHOTOS = /\.(jpe?g|png|webp|tiff?|heic|heif)$/i;
const OTHERS = /\.(zip|mp4|mov|m4v|mkv|webm|avi|json|txt|bin|ply|npy)$/i;

export const useUploads = create<Record<string, Upload>>(() => ({}));

/** The files that the server accepts, without a folder that all of them share. */
export function acceptedFiles(files: NamedFile[]): NamedFile[] {
  const accepted = files.filter(
    ({ name }) =>
      (PHOTOS.test(name) || OTHERS.test(name)) && !name.split('/').some((part) => part.startsWith('.')),
  );
  const top = accepted[0]?.name.split('/')[0];
  const shared = top !== undefined && accepted.every(({ name }) => name.startsWith(`${top}/`));
  return shared
    ? acceptedFiles(accepted.map(({ file, name }) => ({ file, name: name.slice(top.length + 1) })))
    : accepted;
}

/** Uploads all files; resolves when each has arrived or finally failed. */
export async function uploadFiles(project: string, files: NamedFile[]): Promise<Upload> {
  const bytes = files.reduce((sum, { file }) => sum + file.size, 0);
  const state: Upload = { project, files: files.length, done: 0, bytes, sent: 0, failed: [] };
  const publish = () => useUploads.setState({ [project]: { ...state } });
  publish();
  const confirmLeave = (event: BeforeUnloadEvent) => event.preventDefault();
  addEventListener('beforeunload', confirmLeave);
  const queue = [...files];
  const uploadNext = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const { name } = next;
      let before = 0;
      try {
        await uploadFile(project, next, (sent) => {
          state.sent += sent - before;
          before = sent;
          publish();
        });
      } catch (error) {
        state.failed.push({ name, why: uploadError(error) });
      }
      state.done++;
      publish();
    }
  };
  await Promise.all(Array.from({ length: CONCURRENT_UPLOADS }, uploadNext));
  removeEventListener('beforeunload', confirmLeave);
  if (!state.failed.length) useUploads.setState((all) => without(all, project), true);
  return state;
}

export const dismissUpload = (project: string): void =>
  useUploads.setState((all) => without(all, project), true);

const without = (all: Record<string, Upload>, project: string) =>
  Object.fromEntries(Object.entries(all).filter(([id]) => id !== project));

async function uploadFile(
  project: string,
  { file, name }: NamedFile,
  onSent: (bytes: number) => void,
): Promise<void> {
  const { Upload } = await import('tus-js-client');
  return new Promise((resolve, reject) => {
    const upload = new Upload(file, {
      endpoint: `${API}/projects/${project}/uploads?overwrite=true`,
      metadata: { filename: name, overwrite: 'true' },
      retryDelays: RETRY_DELAYS_MS,
      storeFingerprintForResuming: true,
      removeFingerprintOnSuccess: true,
      fingerprint: () => Promise.resolve(`lumigraph-${project}-${name}-${file.size}-${file.lastModified}`),
      onProgress: onSent,
      onSuccess: () => resolve(),
      onError: reject,
    });
    // Resume an upload that a closed page interrupted.
    void upload.findPreviousUploads().then(([previous]) => {
      if (previous) upload.resumeFromPreviousUpload(previous);
      upload.start();
    });
  });
}

/** The server's error message, if it sent one. */
function uploadError(error: unknown): string {
  const response = (error as { originalResponse?: { getBody(): string } | null }).originalResponse;
  try {
    const problem = JSON.parse(response?.getBody() ?? '') as { title?: string; detail?: string };
    return problem.detail ?? problem.title ?? String(error);
  } catch {
    return response ? String(error) : 'connection lost';
  }
}
