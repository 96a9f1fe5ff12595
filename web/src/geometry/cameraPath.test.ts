import { describe, expect, it } from 'vitest';

import type { Vector } from './vector';
import { duration, frames, type KeyFrame, knots, moments, moved, spline, viewAt } from './cameraPath';
import { distance } from './vector';

const key = (id: string, position: Vector, seconds: number, fov = 50): KeyFrame => ({
  id,
  seconds,
  picture: null,
  view: { position, look_at: [0, 0, 0], up: [0, 1, 0], fov },
});
const keys = [
  key('a', [0, 0, 5], 1),
  key('b', [5, 1, 0], 3, 80),
  key('c', [0, 2, -5], 2),
  key('d', [-5, 0, 0], 9),
];

describe('the way through key frames', () => {
  it('lasts as long as all stretches between them', () => {
    expect(duration(keys)).toBe(6);
    expect(moments(keys)).toEqual([0, 1, 4, 6]);
    expect(duration([])).toBe(0);
  });

  it('passes each at its moment', () => {
    keys.forEach((one, i) => {
      const seen = viewAt(keys, moments(keys)[i] as number);
      one.view.position.forEach((value, axis) => expect(seen.position[axis]).toBeCloseTo(value));
      expect(seen.fov).toBeCloseTo(one.view.fov);
    });
  });

  it('is Catmull-Rom where all stretches take the same time', () => {
    const points: Vector[] = [
      [0, 0, 0],
      [1, 2, 0],
      [3, 3, 0],
      [4, 0, 0],
    ];
    // (-p0 + 9 p1 + 9 p2 - p3) / 16
    expect(spline(points, [0, 1, 2, 3], 1.5)).toEqual([32 / 16, 45 / 16, 0]);
  });

  it('is straight and even between two points', () => {
    const points: Vector[] = [
      [0, 0, 0],
      [8, 0, 4],
    ];
    expect(spline(points, [0, 2], 0.5)).toEqual([2, 0, 1]);
  });

  it('neither jumps nor changes its speed at a key frame', () => {
    const h = 1e-5;
    const at = (time: number) => viewAt(keys, time).position;
    const speed = (from: number, to: number) =>
      at(to).map((value, i) => (value - (at(from)[i] as number)) / h);
    const [before, after] = [speed(1 - h, 1), speed(1, 1 + h)];
    before.forEach((value, i) => expect(after[i]).toBeCloseTo(value, 3));
  });

  it('stays at its ends beyond them', () => {
    expect(viewAt(keys, -1).position).toEqual([0, 0, 5]);
    expect(viewAt(keys, 99).position).toEqual([-5, 0, 0]);
  });
});

describe('a film', () => {
  it('takes the way at even times, from the first key frame to the last', () => {
    const views = knots(keys);
    expect(views).toHaveLength(49);
    expect(views[0]?.position).toEqual([0, 0, 5]);
    expect(views[48]?.position).toEqual([-5, 0, 0]);
    views[8]?.position.forEach((value, i) => expect(value).toBeCloseTo([5, 1, 0][i] as number));
  });

  it('is where the way is between two of them as well, to a five-hundredth of its size', () => {
    const views = knots(keys).map((view) => view.position);
    const even = views.map((_, i) => i / 8);
    for (const time of [0.06, 1.06, 2.44, 5.9]) {
      expect(distance(spline(views, even, time), viewAt(keys, time).position)).toBeLessThan(10 / 500);
    }
  });

  it('has so many pictures as its seconds say, and never more than a server takes', () => {
    expect(frames(keys, 10)).toBe(61);
    expect(frames(keys.slice(0, 1), 30)).toBe(1);
    const long = [key('a', [0, 0, 1], 5000), key('b', [0, 0, 2], 1)];
    expect(frames(long, 60)).toBe(10_000);
    expect(knots(long)).toHaveLength(600);
  });
});

it('moves key frames about', () => {
  const ids = (some: KeyFrame[]) => some.map((one) => one.id).join('');
  expect(ids(moved(keys, 0, 2))).toBe('bcad');
  expect(ids(moved(keys, 3, 2))).toBe('abdc');
  expect(ids(moved(keys, 0, -1))).toBe('abcd');
});
