import { expect, test } from 'vitest';

import type { JobEvent } from '../../api/previews';
import { metricSeries, latestValue, pointsOf, stepsPerSecond } from './metrics';

const metrics = (step: number, seconds: number, values: Record<string, number> = {}): JobEvent => ({
  kind: 'metrics',
  step,
  seconds,
  values,
});

test('pointsOf: ignores other events', () => {
  expect(pointsOf([{ kind: 'note', level: 'info', text: 'hello' }, metrics(1, 1)])).toHaveLength(1);
});

test('pointsOf: replaces repeated steps after a crash', () => {
  const points = pointsOf([metrics(10, 1), metrics(20, 2), metrics(30, 3), metrics(20, 2.5), metrics(40, 4)]);
  expect(points.map((point) => [point.step, point.seconds])).toEqual([
    [10, 1],
    [20, 2.5],
    [40, 4],
  ]);
});

test('pointsOf: restarts with a new training', () => {
  expect(pointsOf([metrics(10, 1), metrics(20, 2), metrics(5, 0.5)]).map((point) => point.step)).toEqual([5]);
});

test('latestValue: looks past points without the metric', () => {
  const points = pointsOf([metrics(1, 1, { psnr: 20, loss: 0.2 }), metrics(2, 2, { loss: 0.1 })]);
  expect(latestValue(points, 'psnr')).toBe(20);
  expect(latestValue(points, 'loss')).toBe(0.1);
  expect(latestValue(points, 'gaussians')).toBeNull();
  expect(metricSeries(points, 'psnr')).toEqual([[1], [20]]);
});

test('stepsPerSecond: is the mean of the last points', () => {
  expect(stepsPerSecond([])).toBeNull();
  expect(stepsPerSecond(pointsOf([metrics(100, 2)]))).toBe(50);
  const slow = Array.from({ length: 10 }, (_, i) => metrics(1000 + i, i + 1));
  expect(stepsPerSecond(pointsOf([metrics(900, 0.5), ...slow]))).toBe(1);
});
