// Lengths: in scene units, or in metres once the scale is known.

import type { Vector } from './vector';
import { distance } from './vector';

export const lineLength = (ends: Vector[]): number | null =>
  ends[0] && ends[1] ? distance(ends[0], ends[1]) : null;

/** A length with its unit. */
export const formatLength = (units: number, metres: number | null): string => formatExtent([units], metres);

/** Lengths in the unit that suits the longest one. */
export function formatExtent(units: number[], metres: number | null): string {
  const [unit, length] = metres === null ? ['units', 1] : unitFor(Math.max(...units) * metres);
  return `${units.map((one) => figures((one * (metres ?? 1)) / length)).join(' × ')} ${unit}`;
}

/** The unit's name and its length in metres. */
function unitFor(long: number): [name: string, metres: number] {
  if (long < 0.01) return ['mm', 0.001];
  if (long < 1) return ['cm', 0.01];
  return long < 1000 ? ['m', 1] : ['km', 1000];
}

const figures = (value: number): string =>
  value >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
