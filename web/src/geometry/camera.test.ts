import { describe, expect, it } from 'vitest';

import { interpolateView, fitView, fromHash, toHash, type View, worldFromCam } from './camera';
import { cross, dot, length } from './vector';

const view: View = { position: [0, 0, -2], look_at: [0, 0, 0], up: [0, -1, 0], fov: 50 };

describe('worldFromCam', () => {
  it('is a translation for a camera along z with y down', () => {
    expect(worldFromCam(view).map((row) => row.map((value) => value + 0))).toEqual([
      [1, 0, 0, 0],
      [0, 1, 0, 0],
      [0, 0, 1, -2],
    ]);
  });

  it('looks from +x to the origin with z up', () => {
    const rows = worldFromCam({ position: [3, 0, 0], look_at: [0, 0, 0], up: [0, 0, 1] });
    expect(rows.map((row) => row.map((value) => value + 0))).toEqual([
      [0, 0, -1, 3],
      [1, 0, 0, 0],
      [0, -1, 0, 0],
    ]);
  });

  it('is a rotation if the camera looks along up', () => {
    const rows = worldFromCam({ position: [0, 5, 0], look_at: [0, 0, 0], up: [0, 1, 0] });
    const column = (i: number) => rows.map((row) => row[i]) as [number, number, number];
    expect(cross(column(0), column(1)).map((value) => value + 0)).toEqual(
      column(2).map((value) => value + 0),
    );
    expect(length(column(0))).toBeCloseTo(1);
    expect(dot(column(0), column(1))).toBeCloseTo(0);
  });
});

describe('toHash and fromHash', () => {
  it('round-trip to five digits', () => {
    const there: View = {
      ...view,
      position: [1.234567, -0.00012345678, 1e4],
      look_at: [0.1, 2, 3],
      fov: 43.21,
    };
    const back = fromHash(toHash(there));
    expect(back?.fov).toBeCloseTo(43.21);
    [...there.position, ...there.look_at].forEach((value, i) =>
      expect([...(back?.position ?? []), ...(back?.look_at ?? [])][i]).toBeCloseTo(value, 4),
    );
  });

  it.each([
    '',
    '#',
    '#view=',
    '#view=1,2,3',
    '#view=1,2,3,4,5,6,x',
    '#view=1,2,3,1,2,3,50',
    '#view=,,,,,,',
    '#main',
  ])('fromHash returns null for %j', (hash) => expect(fromHash(hash)).toBeNull());
});

it('interpolateView: is linear between the views', () => {
  const to: View = { ...view, position: [2, 0, 0], fov: 70 };
  expect(interpolateView(view, to, 0)).toEqual(view);
  expect(interpolateView(view, to, 1)).toEqual(to);
  expect(interpolateView(view, to, 0.5).position).toEqual([1, 0, -1]);
});

it('fitView: keeps the horizontal field of view on narrow canvases', () => {
  const square = fitView({ ...view, fov: 90 }, 1);
  expect(Math.tan((square.fov * Math.PI) / 360)).toBeCloseTo(4 / 3);
  expect(fitView(view, 2)).toBe(view);
});
