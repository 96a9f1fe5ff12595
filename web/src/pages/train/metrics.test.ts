import { expect, test } from 'vitest';

import type { JobEvent } from '../../api/previews';
import { curve, newest, pointsOf, speed } from './metrics';

const metrics = (step: number, seconds: number, values: Record<string, number> = {}): JobEvent => ({
  kind: 'metrics',
  step,
  seconds,
  values,
});

test('other events are left out', () => {
  expect(pointsOf([{ kind: 'note', level: 'info', text: 'hello' }, metrics(1, 1)])).toHaveLength(1);
});

test('steps that are repeated after a crash replace what was said of them before', () => {
  const points = pointsOf([metrics(10, 1), metrics(20, 2), metrics(30, 3), metrics(20, 2.5), metrics(40, 4)]);
  expect(points.map((point) => [point.step, point.seconds])).toEqual([
    [10, 1],
    [20, 2.5],
    [40, 4],
  ]);
});

test('training that began anew forgets everything', () => {
  expect(pointsOf([metrics(10, 1), metrics(20, 2), metrics(5, 0.5)]).map((point) => point.step)).toEqual([5]);
});

test('the newest of a number is told even where the last point has none', () => {
  const points = pointsOf([metrics(1, 1, { psnr: 20, loss: 0.2 }), metrics(2, 2, { loss: 0.1 })]);
  expect(newest(points, 'psnr')).toBe(20);
  expect(newest(points, 'loss')).toBe(0.1);
  expect(newest(points, 'gaussians')).toBeNull();
  expect(curve(points, 'psnr')).toEqual([[1], [20]]);
});

test('speed is that of lately', () => {
  expect(speed([])).toBeNull();
  expect(speed(pointsOf([metrics(100, 2)]))).toBe(50);
  const slow = Array.from({ length: 10 }, (_, i) => metrics(1000 + i, i + 1));
  expect(speed(pointsOf([metrics(900, 0.5), ...slow]))).toBe(1);
});
