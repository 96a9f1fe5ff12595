import { expect, it } from 'vitest';

import { middle } from './viewerHandle';

it('takes as much of the middle as has the shape', () => {
  expect(middle(1000, 500, 1.5)).toEqual([125, 0, 750, 500]);
  expect(middle(300, 600, 1.5)).toEqual([0, 200, 300, 200]);
  expect(middle(640, 480, 640 / 480)).toEqual([0, 0, 640, 480]);
});
