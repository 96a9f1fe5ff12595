// A film of a camera's way, as it stands in the form, and the request for it.

import type { Asked } from '../../api/client';

export type Path = 'orbit' | 'spiral';

export interface Film {
  path: Path;
  size: string; // of SIZES
  seconds: string;
  fps: string;
}

export const NEW_FILM: Film = { path: 'orbit', size: '', seconds: '6', fps: '30' };

export const SIZES: [value: string, name: string][] = [
  ['', 'As the photos'],
  ['640x360', '640 × 360'],
  ['1280x720', '1280 × 720 (HD)'],
  ['1920x1080', '1920 × 1080 (Full HD)'],
  ['1080x1080', '1080 × 1080 (square)'],
  ['720x1280', '720 × 1280 (upright)'],
];

/** How many pictures a film has; a sentence where it cannot be told. */
export function frames({
  seconds,
  fps,
}: Film): { count: number } | { field: 'seconds' | 'fps'; fault: string } {
  const rate = Number(fps);
  if (!Number.isInteger(rate) || rate < 1 || rate > 240)
    return { field: 'fps', fault: 'Must be a whole number from 1 to 240' };
  const count = Math.round(Number(seconds) * rate);
  if (!(count >= 1)) return { field: 'seconds', fault: 'Must be more than 0' };
  if (count > 100_000) return { field: 'seconds', fault: 'That would be more than 100,000 pictures' };
  return { count };
}

export function filmOf(film: Film, run: string): { asked: Asked | null; faults: Record<string, string> } {
  const many = frames(film);
  if (!('count' in many)) return { asked: null, faults: { [many.field]: many.fault } };
  const [width, height] = film.size.split('x').map(Number);
  return {
    asked: {
      verb: 'render',
      run,
      path: film.path,
      frames: many.count,
      fps: Number(film.fps),
      ...(width && height ? { size: [width, height] } : {}),
    },
    faults: {},
  };
}
