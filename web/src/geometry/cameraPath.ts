// Camera paths through key frames: Catmull-Rom (1974) in time, C1 at the key frames.

import type { Vector } from './vector';
import type { View } from './camera';
import { add, sub, scale, normalize } from './vector';

export interface KeyFrame {
  id: string;
  view: View;
  seconds: number; // until the next key frame
  picture: string | null; // a small JPEG of the view, as a data: URL
}

export const MAX_FRAMES = 10_000; // limit of the server

/** Seconds from the first key frame to the last. */
export const duration = (keys: KeyFrame[]): number =>
  keys.slice(0, -1).reduce((sum, key) => sum + key.seconds, 0);

/** The time of each key frame, in seconds. */
export function keyTimes(keys: KeyFrame[]): number[] {
  let at = 0;
  return keys.map((key) => {
    const now = at;
    at += key.seconds;
    return now;
  });
}

/** The point at `time` on a spline that passes `points[i]` at time `at[i]`. */
export function interpolatePoints(points: Vector[], at: number[], time: number): Vector {
  const last = points.length - 1;
  const first = points[0];
  if (!first) throw new Error('a path needs at least one point');
  if (last === 0) return first;
  let i = 0;
  while (i < last - 1 && time >= (at[i + 1] as number)) i++;
  const [from, to] = [points[i] as Vector, points[i + 1] as Vector];
  const [t0, t1] = [at[i] as number, at[i + 1] as number];
  const span = t1 - t0;
  if (span <= 0) return to;
  const u = Math.min(1, Math.max(0, (time - t0) / span));
  return hermite(from, scale(speed(points, at, i), span), to, scale(speed(points, at, i + 1), span), u);
}

/** The velocity at point `i`: the central difference of its neighbours. */
function speed(points: Vector[], at: number[], i: number): Vector {
  const a = Math.max(0, i - 1);
  const b = Math.min(points.length - 1, i + 1);
  const span = (at[b] as number) - (at[a] as number);
  return span > 0 ? scale(sub(points[b] as Vector, points[a] as Vector), 1 / span) : [0, 0, 0];
}

function hermite(p: Vector, v: Vector, q: Vector, w: Vector, u: number): Vector {
  const [u2, u3] = [u * u, u * u * u];
  const ends = add(scale(p, 2 * u3 - 3 * u2 + 1), scale(q, 3 * u2 - 2 * u3));
  return add(ends, add(scale(v, u3 - 2 * u2 + u), scale(w, u3 - u2)));
}

/** The view at `time`, in seconds from the first key frame. */
export function viewAt(keys: KeyFrame[], time: number): View {
  const at = keyTimes(keys);
  const through = (of: (view: View) => Vector) =>
    interpolatePoints(
      keys.map((key) => of(key.view)),
      at,
      time,
    );
  return {
    position: through((view) => view.position),
    look_at: through((view) => view.look_at),
    up: normalize(through((view) => view.up)),
    fov: through((view) => [view.fov, 0, 0])[0],
  };
}

/** The number of frames of a video of this path. */
export const frames = (keys: KeyFrame[], fps: number): number =>
  keys.length < 2 ? keys.length : Math.min(MAX_FRAMES, Math.max(2, Math.round(duration(keys) * fps) + 1));

const SAMPLES_PER_SECOND = 8;
const MAX_SAMPLES = 600; // the list is part of every event of the job

/** * Views at even times, dense enough that a spline through them equals the path. The server has no durations of key
 * frames; even samples keep the timing.
 */
export function sampleViews(keys: KeyFrame[]): View[] {
  if (keys.length < 2) return keys.map((key) => key.view);
  const whole = duration(keys);
  const count = Math.min(MAX_SAMPLES, Math.max(2, Math.ceil(whole * SAMPLES_PER_SECOND) + 1));
  return Array.from({ length: count }, (_, i) => rounded(viewAt(keys, (whole * i) / (count - 1))));
}

const rounded = (view: View): View => {
  const short = (a: Vector) => a.map((value) => Number(value.toPrecision(6))) as Vector;
  return { ...view, position: short(view.position), look_at: short(view.look_at), up: short(view.up) };
};

export const moveKeyFrame = (keys: KeyFrame[], from: number, to: number): KeyFrame[] => {
  const one = keys[from];
  if (!one || to < 0 || to >= keys.length) return keys;
  const rest = keys.filter((_, i) => i !== from);
  return [...rest.slice(0, to), one, ...rest.slice(to)];
};
