// The way of a camera through key frames: Catmull-Rom (1974) in time, so that it neither jumps nor stops at one.

import type { Vector } from './vector';
import type { View } from './camera';
import { add, sub, times, unit } from './vector';

export interface KeyFrame {
  id: string;
  view: View;
  seconds: number; // from here to the next one
  picture: string | null; // what was seen from there: a small JPEG, as a data: URL
}

export const MOST_FRAMES = 10_000; // that the server takes

/** From the first key frame to the last. */
export const duration = (keys: KeyFrame[]): number =>
  keys.slice(0, -1).reduce((sum, key) => sum + key.seconds, 0);

/** The moment at which each key frame is passed. */
export function moments(keys: KeyFrame[]): number[] {
  let at = 0;
  return keys.map((key) => {
    const now = at;
    at += key.seconds;
    return now;
  });
}

/** The point at `time` of a smooth way that is at each of `points` at the moment of the same number. */
export function spline(points: Vector[], at: number[], time: number): Vector {
  const last = points.length - 1;
  const first = points[0];
  if (!first) throw new Error('a way needs a point');
  if (last === 0) return first;
  let i = 0;
  while (i < last - 1 && time >= (at[i + 1] as number)) i++;
  const [from, to] = [points[i] as Vector, points[i + 1] as Vector];
  const [t0, t1] = [at[i] as number, at[i + 1] as number];
  const span = t1 - t0;
  if (span <= 0) return to;
  const u = Math.min(1, Math.max(0, (time - t0) / span));
  return hermite(from, times(speed(points, at, i), span), to, times(speed(points, at, i + 1), span), u);
}

/** How fast the way passes point `i`: as from its neighbour before to the one after. */
function speed(points: Vector[], at: number[], i: number): Vector {
  const a = Math.max(0, i - 1);
  const b = Math.min(points.length - 1, i + 1);
  const span = (at[b] as number) - (at[a] as number);
  return span > 0 ? times(sub(points[b] as Vector, points[a] as Vector), 1 / span) : [0, 0, 0];
}

function hermite(p: Vector, v: Vector, q: Vector, w: Vector, u: number): Vector {
  const [u2, u3] = [u * u, u * u * u];
  const ends = add(times(p, 2 * u3 - 3 * u2 + 1), times(q, 3 * u2 - 2 * u3));
  return add(ends, add(times(v, u3 - 2 * u2 + u), times(w, u3 - u2)));
}

/** The view at a moment between the first key frame and the last. */
export function viewAt(keys: KeyFrame[], time: number): View {
  const at = moments(keys);
  const through = (of: (view: View) => Vector) =>
    spline(
      keys.map((key) => of(key.view)),
      at,
      time,
    );
  return {
    position: through((view) => view.position),
    look_at: through((view) => view.look_at),
    up: unit(through((view) => view.up)),
    fov: through((view) => [view.fov, 0, 0])[0],
  };
}

/** How many pictures a film of this path has. */
export const frames = (keys: KeyFrame[], fps: number): number =>
  keys.length < 2 ? keys.length : Math.min(MOST_FRAMES, Math.max(2, Math.round(duration(keys) * fps) + 1));

const KNOTS = 8; // a second
const MOST_KNOTS = 600; // the list travels with all news of the job

/**
 * Views at even times, close enough that a spline through them is the way itself: a server that knows nothing of
 * seconds between key frames takes it at the same pace.
 */
export function knots(keys: KeyFrame[]): View[] {
  if (keys.length < 2) return keys.map((key) => key.view);
  const whole = duration(keys);
  const count = Math.min(MOST_KNOTS, Math.max(2, Math.ceil(whole * KNOTS) + 1));
  return Array.from({ length: count }, (_, i) => rounded(viewAt(keys, (whole * i) / (count - 1))));
}

const rounded = (view: View): View => {
  const short = (a: Vector) => a.map((value) => Number(value.toPrecision(6))) as Vector;
  return { ...view, position: short(view.position), look_at: short(view.look_at), up: short(view.up) };
};

export const moved = (keys: KeyFrame[], from: number, to: number): KeyFrame[] => {
  const one = keys[from];
  if (!one || to < 0 || to >= keys.length) return keys;
  const rest = keys.filter((_, i) => i !== from);
  return [...rest.slice(0, to), one, ...rest.slice(to)];
};
