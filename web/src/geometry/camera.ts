// Camera views: as a pose matrix, and in the hash of an address.

import type { Vector } from './vector';
import { cross, distance, dot, lerp, sub, normalize } from './vector';

/** In world axes and units; `fov` is vertical, in degrees. */
export interface View {
  position: Vector;
  look_at: Vector;
  up: Vector;
  fov: number;
}

export const [MIN_FOV_DEG, MAX_FOV_DEG] = [15, 110];

/** The (3, 4) world-from-camera matrix in OpenCV axes: +z forward, +y down. */
export function worldFromCam({
  position,
  look_at,
  up,
}: Pick<View, 'position' | 'look_at' | 'up'>): number[][] {
  const forward = normalize(sub(look_at, position));
  const right = normalize(cross(forward, resolveUp(forward, up)));
  const down = cross(forward, right);
  return ([0, 1, 2] as const).map((i) => [right[i], down[i], forward[i], position[i]]);
}

/** `up`, or another axis if the camera looks along it. */
function resolveUp(forward: Vector, up: Vector): Vector {
  if (Math.abs(dot(forward, normalize(up))) < 1 - 1e-9) return up;
  return Math.abs(forward[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
}

const HASH_DIGITS = 5;
const KEY = 'view';

export function toHash({ position, look_at, fov }: View): string {
  const numbers = [...position, ...look_at, fov].map((value) => Number(value.toPrecision(HASH_DIGITS)));
  return `#${KEY}=${numbers.join(',')}`;
}

/** The view in an address, or null if it has no valid one. */
export function fromHash(hash: string): Omit<View, 'up'> | null {
  const text = new URLSearchParams(hash.replace(/^#/, '')).get(KEY);
  const numbers = text?.split(',').map((part) => (part.trim() === '' ? NaN : Number(part)));
  if (numbers?.length !== 7 || !numbers.every(Number.isFinite)) return null;
  const [a, b, c, d, e, f, fov] = numbers as [number, number, number, number, number, number, number];
  const [position, look_at]: [Vector, Vector] = [
    [a, b, c],
    [d, e, f],
  ];
  if (distance(position, look_at) < 1e-9 || fov < 1 || fov > 170) return null;
  return { position, look_at, fov };
}

/** The length of the diagonal of a box. */
export const boxDiagonal = (box: [Vector, Vector]): number => Math.max(distance(...box), 1e-6);
export const boxCentre = (box: [Vector, Vector]): Vector => [
  (box[0][0] + box[1][0]) / 2,
  (box[0][1] + box[1][1]) / 2,
  (box[0][2] + box[1][2]) / 2,
];

/** The view at fraction `t` (0..1) from `a` to `b`. */
export function interpolateView(a: View, b: View, t: number): View {
  return {
    position: lerp(a.position, b.position, t),
    look_at: lerp(a.look_at, b.look_at, t),
    up: normalize(lerp(a.up, b.up, t)),
    fov: a.fov + (b.fov - a.fov) * t,
  };
}

const MIN_FITTED_ASPECT = 4 / 3; // of most photos

/** Widens the vertical field of view on narrow canvases, so that the horizontal one stays that of a photo. */
export function fitView<T extends Omit<View, 'up'>>(view: T, aspect: number): T {
  if (aspect >= MIN_FITTED_ASPECT) return view;
  const half = Math.tan((view.fov * Math.PI) / 360) * (MIN_FITTED_ASPECT / aspect);
  return { ...view, fov: Math.min(MAX_FOV_DEG, (Math.atan(half) * 360) / Math.PI) };
}
