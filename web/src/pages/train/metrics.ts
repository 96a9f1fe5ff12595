// What a training says of itself, as points of curves.

import type { Schema } from '../../api/client';
import type { JobEvent } from '../../api/previews';

export type Point = Pick<Schema['Metrics'], 'step' | 'seconds' | 'values'>;

/** Oldest first. Training that goes on after a crash repeats steps: what they said before the crash is forgotten. */
export function pointsOf(events: JobEvent[]): Point[] {
  const points: Point[] = [];
  for (const event of events) {
    if (event.kind !== 'metrics') continue;
    while ((points.at(-1)?.step ?? -1) >= event.step) points.pop();
    points.push(event);
  }
  return points;
}

/** The newest of a number; null where nothing tells it. */
export function newest(points: Point[], name: string): number | null {
  for (let i = points.length - 1; i >= 0; i--) {
    const value = points[i]?.values[name];
    if (value !== undefined) return value;
  }
  return null;
}

const WINDOW = 5; // points that the speed of now is the mean of

/** Steps a second, lately. */
export function speed(points: Point[]): number | null {
  const last = points.at(-1);
  if (!last) return null;
  const first = points.at(-1 - WINDOW) ??
    (points.length > 1 ? points[0] : undefined) ?? { step: 0, seconds: 0 };
  const seconds = last.seconds - first.seconds;
  return seconds > 0 ? (last.step - first.step) / seconds : null;
}

/** Times and values of one number, for drawing. */
export function curve(points: Point[], name: string): [number[], number[]] {
  const told = points.filter((point) => Number.isFinite(point.values[name]));
  return [told.map((point) => point.seconds), told.map((point) => point.values[name] ?? 0)];
}
