// Metrics of a training as points of curves.

import type { Schema } from '../../api/client';
import type { JobEvent } from '../../api/previews';

export type MetricPoint = Pick<Schema['Metrics'], 'step' | 'seconds' | 'values'>;

/** Metric events, oldest first. Training repeats steps after a crash; the older metrics of these steps are dropped. */
export function pointsOf(events: JobEvent[]): MetricPoint[] {
  const points: MetricPoint[] = [];
  for (const event of events) {
    if (event.kind !== 'metrics') continue;
    while ((points.at(-1)?.step ?? -1) >= event.step) points.pop();
    points.push(event);
  }
  return points;
}

/** The latest value of a metric; null if there is none. */
export function latestValue(points: MetricPoint[], name: string): number | null {
  for (let i = points.length - 1; i >= 0; i--) {
    const value = points[i]?.values[name];
    if (value !== undefined) return value;
  }
  return null;
}

const SPEED_WINDOW_POINTS = 5;

/** The mean speed over the last points. */
export function stepsPerSecond(points: MetricPoint[]): number | null {
  const last = points.at(-1);
  if (!last) return null;
  const first = points.at(-1 - SPEED_WINDOW_POINTS) ??
    (points.length > 1 ? points[0] : undefined) ?? { step: 0, seconds: 0 };
  const seconds = last.seconds - first.seconds;
  return seconds > 0 ? (last.step - first.step) / seconds : null;
}

/** Times and values of a metric. */
export function metricSeries(points: MetricPoint[], name: string): [number[], number[]] {
  const unwrap = points.filter((point) => Number.isFinite(point.values[name]));
  return [unwrap.map((point) => point.seconds), unwrap.map((point) => point.values[name] ?? 0)];
}
