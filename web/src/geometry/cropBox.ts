// A box that splats outside of are hidden by.

import type { Vector } from './vector';

export type Box = [Vector, Vector];

const ROOM = 0.5; // of the box's side, that the sliders go beyond it

/** How far the sliders go: what lies around the scene can be kept as well. */
export function limits(box: Box): Box {
  const side = [0, 1, 2].map((i) => Math.max(1e-6, (box[1][i] as number) - (box[0][i] as number)));
  const end = (corner: Vector, sign: number) =>
    corner.map((value, i) => value + sign * ROOM * (side[i] as number)) as Vector;
  return [end(box[0], -1), end(box[1], 1)];
}

export const contains = (box: Box, point: Vector): boolean =>
  point.every((value, i) => value >= (box[0][i] as number) && value <= (box[1][i] as number));

/** The box with other ends along one axis. */
export function cut(box: Box, axis: number, [low, high]: [number, number]): Box {
  const put = (corner: Vector, value: number) => corner.map((old, i) => (i === axis ? value : old)) as Vector;
  return [put(box[0], low), put(box[1], high)];
}
