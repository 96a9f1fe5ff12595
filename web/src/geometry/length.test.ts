import { expect, it } from 'vitest';

import { contains, cut, limits } from './cropBox';
import { keepScale, lengthOf, measured, readScale } from './length';

it('reads lengths as people do', () => {
  expect(measured(2.34567, null)).toBe('2.35 units');
  expect(measured(2, 0.5)).toBe('1 m');
  expect(measured(0.5, 0.5)).toBe('25 cm');
  expect(measured(0.01, 0.5)).toBe('5 mm');
  expect(measured(5000, 0.5)).toBe('2.5 km');
});

it('measures between two ends and no fewer', () => {
  expect(lengthOf([])).toBeNull();
  expect(lengthOf([[0, 0, 0]])).toBeNull();
  expect(
    lengthOf([
      [0, 0, 0],
      [3, 4, 0],
    ]),
  ).toBe(5);
});

it('keeps what a unit is, for each project', () => {
  keepScale('a', 0.25);
  expect([readScale('a'), readScale('b')]).toEqual([0.25, null]);
  keepScale('a', null);
  expect(readScale('a')).toBeNull();
});

it('cuts a box along an axis, within limits around it', () => {
  expect(limits([[0, 0, 0], [2, 4, 6]])).toEqual([[-1, -2, -3], [3, 6, 9]]); // prettier-ignore
  const box = cut([[0, 0, 0], [2, 4, 6]], 1, [1, 2]); // prettier-ignore
  expect(box).toEqual([[0, 1, 0], [2, 2, 6]]); // prettier-ignore
  expect(contains(box, [1, 1.5, 1])).toBe(true);
  expect(contains(box, [1, 3, 1])).toBe(false);
});
