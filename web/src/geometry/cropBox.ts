// The crop box: splats outside are hidden.

import type { Vector } from './vector';

export type Box = [Vector, Vector];

const SLIDER_MARGIN = 0.5; // fraction of the box side

/** The range of the sliders: the box with a margin around it. */
export function sliderLimits(box: Box): Box {
  const side = [0, 1, 2].map((i) => Math.max(1e-6, (box[1][i] as number) - (box[0][i] as number)));
  const end = (corner: Vector, sign: number) =>
    corner.map((value, i) => value + sign * SLIDER_MARGIN * (side[i] as number)) as Vector;
  return [end(box[0], -1), end(box[1], 1)];
}

export const contains = (box: Box, point: Vector): boolean =>
  point.every((value, i) => value >= (box[0][i] as number) && value <= (box[1][i] as number));

/** The box with another range along one axis. */
export function withAxisRange(box: Box, axis: number, [low, high]: [number, number]): Box {
  const put = (corner: Vector, value: number) => corner.map((old, i) => (i === axis ? value : old)) as Vector;
  return [put(box[0], low), put(box[1], high)];
}
