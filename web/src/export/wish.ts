// What can be made of a run, and the request for it.

import type { Asked } from '../api/client';

export type Path = 'orbit' | 'spiral';

export interface Wish {
  form: string; // of a file, or FILM
  points: boolean;
  path: Path;
  size: string; // of SIZES
  seconds: string;
  fps: string;
}

export const FILM = 'film';
export const NEW: Wish = { form: 'ply', points: false, path: 'orbit', size: '', seconds: '6', fps: '30' };

export const SIZES: [value: string, name: string][] = [
  ['', 'As the photos'],
  ['640x360', '640 × 360'],
  ['1280x720', '1280 × 720 (HD)'],
  ['1920x1080', '1920 × 1080 (Full HD)'],
  ['1080x1080', '1080 × 1080 (square)'],
  ['720x1280', '720 × 1280 (upright)'],
];

/** Who reads a format. */
const READERS: Record<string, [name: string, words: string]> = {
  ply: ['PLY', 'For splat viewers, SuperSplat, and the plug-ins of Unity and Unreal. Nothing is lost.'],
  spz: ['SPZ', 'A tenth of the size, for the web and for phones. Hardly a difference to see.'],
  [FILM]: ['Film', 'An MP4 of a camera going around the scene. Plays everywhere.'],
};

export const formName = (form: string): string => READERS[form]?.[0] ?? form.toUpperCase();
export const formWords = (form: string): string => READERS[form]?.[1] ?? `A file that ends with .${form}.`;

/** How many pictures a film has; a sentence where it cannot be told. */
export function frames({
  seconds,
  fps,
}: Wish): { count: number } | { field: 'seconds' | 'fps'; fault: string } {
  const rate = Number(fps);
  if (!Number.isInteger(rate) || rate < 1 || rate > 240)
    return { field: 'fps', fault: 'Must be a whole number from 1 to 240' };
  const count = Math.round(Number(seconds) * rate);
  if (!(count >= 1)) return { field: 'seconds', fault: 'Must be more than 0' };
  if (count > 100_000) return { field: 'seconds', fault: 'That would be more than 100,000 pictures' };
  return { count };
}

/** The request; null while something is wrong in the form. */
export function request(wish: Wish, run: string): Asked | null {
  if (wish.form !== FILM) {
    return {
      verb: 'export',
      run,
      form: wish.form,
      ...(wish.form === 'ply' && wish.points ? { points: true } : {}),
    };
  }
  const many = frames(wish);
  if (!('count' in many)) return null;
  const [width, height] = wish.size.split('x').map(Number);
  return {
    verb: 'render',
    run,
    path: wish.path,
    frames: many.count,
    fps: Number(wish.fps),
    ...(width && height ? { size: [width, height] } : {}),
  };
}
