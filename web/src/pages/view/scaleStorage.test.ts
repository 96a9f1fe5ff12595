import { expect, it } from 'vitest';

import { keepScale, readScale } from './scaleStorage';

it('keeps what a unit is, for each project', () => {
  keepScale('a', 0.25);
  expect([readScale('a'), readScale('b')]).toEqual([0.25, null]);
  keepScale('a', null);
  expect(readScale('a')).toBeNull();
});
