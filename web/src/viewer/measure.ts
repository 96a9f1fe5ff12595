// Lengths: in the units of the scene until somebody says how long something really is.

import type { Vector } from '../api/shown';
import { distance } from './vector';

const KEY = (project: string) => `lumigraph.metres.${project}`;

/** Metres in a unit of this project's scene; null while nobody has said. */
export function readScale(project: string): number | null {
  const kept = Number(localStorage.getItem(KEY(project)));
  return Number.isFinite(kept) && kept > 0 ? kept : null;
}

export function keepScale(project: string, metres: number | null): void {
  if (metres === null) localStorage.removeItem(KEY(project));
  else localStorage.setItem(KEY(project), String(metres));
}

export const lengthOf = (ends: Vector[]): number | null =>
  ends[0] && ends[1] ? distance(ends[0], ends[1]) : null;

/** A length as people read it. */
export function measured(units: number, metres: number | null): string {
  if (metres === null) return `${figures(units)} units`;
  const long = units * metres;
  if (long < 0.01) return `${figures(long * 1000)} mm`;
  if (long < 1) return `${figures(long * 100)} cm`;
  return long < 1000 ? `${figures(long)} m` : `${figures(long / 1000)} km`;
}

const figures = (value: number): string =>
  value >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
