import { describe, expect, it } from 'vitest';

import type { Vector } from './vector';
import {
  duration,
  frames,
  type KeyFrame,
  sampleViews,
  keyTimes,
  moveKeyFrame,
  interpolatePoints,
  viewAt,
} from './cameraPath';
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

describe('a camera path', () => {
  it('lasts as long as all its segments', () => {
    expect(duration(keys)).toBe(6);
    expect(keyTimes(keys)).toEqual([0, 1, 4, 6]);
    expect(duration([])).toBe(0);
  });

  it('passes each key frame at its time', () => {
    keys.forEach((one, i) => {
      const seen = viewAt(keys, keyTimes(keys)[i] as number);
      one.view.position.forEach((value, axis) => expect(seen.position[axis]).toBeCloseTo(value));
      expect(seen.fov).toBeCloseTo(one.view.fov);
    });
  });

  it('is Catmull-Rom for segments of equal duration', () => {
    const points: Vector[] = [
      [0, 0, 0],
      [1, 2, 0],
      [3, 3, 0],
      [4, 0, 0],
    ];
    // (-p0 + 9 p1 + 9 p2 - p3) / 16
    expect(interpolatePoints(points, [0, 1, 2, 3], 1.5)).toEqual([32 / 16, 45 / 16, 0]);
  });

  it('is linear between two points', () => {
    const points: Vector[] = [
      [0, 0, 0],
      [8, 0, 4],
    ];
    expect(interpolatePoints(points, [0, 2], 0.5)).toEqual([2, 0, 1]);
  });

  it('is C1 at a key frame', () => {
    const h = 1e-5;
    const at = (time: number) => viewAt(keys, time).position;
    const speed = (from: number, to: number) =>
      at(to).map((value, i) => (value - (at(from)[i] as number)) / h);
    const [before, after] = [speed(1 - h, 1), speed(1, 1 + h)];
    before.forEach((value, i) => expect(after[i]).toBeCloseTo(value, 3));
  });

  it('is constant beyond its ends', () => {
    expect(viewAt(keys, -1).position).toEqual([0, 0, 5]);
    expect(viewAt(keys, 99).position).toEqual([-5, 0, 0]);
  });
});

describe('a video', () => {
  it('samples the path at even times, from the first key frame to the last', () => {
    const views = sampleViews(keys);
    expect(views).toHaveLength(49);
    expect(views[0]?.position).toEqual([0, 0, 5]);
    expect(views[48]?.position).toEqual([-5, 0, 0]);
    views[8]?.position.forEach((value, i) => expect(value).toBeCloseTo([5, 1, 0][i] as number));
  });

  it('matches the path between samples to 1/500 of its size', () => {
    const views = sampleViews(keys).map((view) => view.position);
    const even = views.map((_, i) => i / 8);
    for (const time of [0.06, 1.06, 2.44, 5.9]) {
      expect(distance(interpolatePoints(views, even, time), viewAt(keys, time).position)).toBeLessThan(
        10 / 500,
      );
    }
  });

  it('has one frame per interval, up to the limit of the server', () => {
    expect(frames(keys, 10)).toBe(61);
    expect(frames(keys.slice(0, 1), 30)).toBe(1);
    const long = [key('a', [0, 0, 1], 5000), key('b', [0, 0, 2], 1)];
    expect(frames(long, 60)).toBe(10_000);
    expect(sampleViews(long)).toHaveLength(600);
  });
});

it('moveKeyFrame: reorders key frames', () => {
  const ids = (some: KeyFrame[]) => some.map((one) => one.id).join('');
  expect(ids(moveKeyFrame(keys, 0, 2))).toBe('bcad');
  expect(ids(moveKeyFrame(keys, 3, 2))).toBe('abdc');
  expect(ids(moveKeyFrame(keys, 0, -1))).toBe('abcd');
});
