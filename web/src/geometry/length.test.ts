import { expect, it } from 'vitest';

import { lineLength, formatLength } from './length';

it('formatLength: chooses the unit by the length', () => {
  expect(formatLength(2.34567, null)).toBe('2.35 units');
  expect(formatLength(2, 0.5)).toBe('1 m');
  expect(formatLength(0.5, 0.5)).toBe('25 cm');
  expect(formatLength(0.01, 0.5)).toBe('5 mm');
  expect(formatLength(5000, 0.5)).toBe('2.5 km');
});

it('lineLength: needs two ends', () => {
  expect(lineLength([])).toBeNull();
  expect(lineLength([[0, 0, 0]])).toBeNull();
  expect(
    lineLength([
      [0, 0, 0],
      [3, 4, 0],
    ]),
  ).toBe(5);
});
