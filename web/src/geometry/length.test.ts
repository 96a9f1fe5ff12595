import { expect, it } from 'vitest';

import { lengthOf, measured } from './length';

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
