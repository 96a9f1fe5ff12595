// Where a camera stands and what it looks at: as a matrix, and as the end of an address.

import type { Vector } from './vector';
import { cross, distance, dot, mix, sub, unit } from './vector';

/** In the axes and units of the world; `fov` is the vertical angle in degrees. */
export interface View {
  position: Vector;
  look_at: Vector;
  up: Vector;
  fov: number;
}

export const [NARROWEST, WIDEST] = [15, 110];

/** Three rows of four: a camera that looks along +z, with +y down, as captures have them. */
export function worldFromCam({
  position,
  look_at,
  up,
}: Pick<View, 'position' | 'look_at' | 'up'>): number[][] {
  const forward = unit(sub(look_at, position));
  const right = unit(cross(forward, upFor(forward, up)));
  const down = cross(forward, right);
  return ([0, 1, 2] as const).map((i) => [right[i], down[i], forward[i], position[i]]);
}

/** `up`, or another direction where the camera looks along it and it says nothing. */
function upFor(forward: Vector, up: Vector): Vector {
  if (Math.abs(dot(forward, unit(up))) < 1 - 1e-9) return up;
  return Math.abs(forward[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
}

const DIGITS = 5; // a camera is where it was to a hundred-thousandth
const KEY = 'view';

export function toHash({ position, look_at, fov }: View): string {
  const numbers = [...position, ...look_at, fov].map((value) => Number(value.toPrecision(DIGITS)));
  return `#${KEY}=${numbers.join(',')}`;
}

/** The view of an address, or null where it holds none that makes sense. */
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

/** How far the corners of a box lie apart. */
export const reachOf = (box: [Vector, Vector]): number => Math.max(distance(...box), 1e-6);
export const middleOf = (box: [Vector, Vector]): Vector => [
  (box[0][0] + box[1][0]) / 2,
  (box[0][1] + box[1][1]) / 2,
  (box[0][2] + box[1][2]) / 2,
];

/** The same view from `t` (0..1) of the way to another one. */
export function between(a: View, b: View, t: number): View {
  return {
    position: mix(a.position, b.position, t),
    look_at: mix(a.look_at, b.look_at, t),
    up: unit(mix(a.up, b.up, t)),
    fov: a.fov + (b.fov - a.fov) * t,
  };
}

const USUAL = 4 / 3; // the shape of photos

/** On a canvas narrower than photos are, as much to the left and right as they show. */
export function fitted<T extends Omit<View, 'up'>>(view: T, aspect: number): T {
  if (aspect >= USUAL) return view;
  const half = Math.tan((view.fov * Math.PI) / 360) * (USUAL / aspect);
  return { ...view, fov: Math.min(WIDEST, (Math.atan(half) * 360) / Math.PI) };
}
