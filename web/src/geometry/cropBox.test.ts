import { expect, it } from 'vitest';

import { contains, withAxisRange, sliderLimits } from './cropBox';

it('withAxisRange: changes one axis; sliderLimits: adds a margin', () => {
  expect(sliderLimits([[0, 0, 0], [2, 4, 6]])).toEqual([[-1, -2, -3], [3, 6, 9]]); // prettier-ignore
  const box = withAxisRange([[0, 0, 0], [2, 4, 6]], 1, [1, 2]); // prettier-ignore
  expect(box).toEqual([[0, 1, 0], [2, 2, 6]]); // prettier-ignore
  expect(contains(box, [1, 1.5, 1])).toBe(true);
  expect(contains(box, [1, 3, 1])).toBe(false);
});
