// The state of the video form, and its request.

import type { JobRequest } from '../../api/client';

export type Path = 'orbit' | 'spiral';

export interface VideoFormState {
  path: Path;
  size: string; // of SIZES
  seconds: string;
  fps: string;
}

export const INITIAL_VIDEO: VideoFormState = { path: 'orbit', size: '', seconds: '6', fps: '30' };

export const SIZES: [value: string, name: string][] = [
  ['', 'Photo size'],
  ['640x360', '640 × 360'],
  ['1280x720', '1280 × 720 (HD)'],
  ['1920x1080', '1920 × 1080 (Full HD)'],
  ['1080x1080', '1080 × 1080 (square)'],
  ['720x1280', '720 × 1280 (upright)'],
];

/** The number of frames, or an error. */
export function frames({
  seconds,
  fps,
}: VideoFormState): { count: number } | { field: 'seconds' | 'fps'; error: string } {
  const rate = Number(fps);
  if (!Number.isInteger(rate) || rate < 1 || rate > 240)
    return { field: 'fps', error: 'Must be a whole number from 1 to 240' };
  const count = Math.round(Number(seconds) * rate);
  if (!(count >= 1)) return { field: 'seconds', error: 'Must be more than 0' };
  if (count > 100_000) return { field: 'seconds', error: 'Must give at most 100,000 frames' };
  return { count };
}

export function buildVideoRequest(
  video: VideoFormState,
  run: string,
): { request: JobRequest | null; errors: Record<string, string> } {
  const frameCount = frames(video);
  if (!('count' in frameCount)) return { request: null, errors: { [frameCount.field]: frameCount.error } };
  const [width, height] = video.size.split('x').map(Number);
  return {
    request: {
      verb: 'render',
      run,
      path: video.path,
      frames: frameCount.count,
      fps: Number(video.fps),
      ...(width && height ? { size: [width, height] } : {}),
    },
    errors: {},
  };
}
