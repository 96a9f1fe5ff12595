import { expect, it } from 'vitest';

import { saveScale, readScale } from './scaleStorage';

it('saveScale: keeps one scale per project', () => {
  saveScale('a', 0.25);
  expect([readScale('a'), readScale('b')]).toEqual([0.25, null]);
  saveScale('a', null);
  expect(readScale('a')).toBeNull();
});
