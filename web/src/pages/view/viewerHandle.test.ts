import { expect, it } from 'vitest';

import { centredCrop } from './viewerHandle';

it('centredCrop: is the largest centred crop of an aspect ratio', () => {
  expect(centredCrop(1000, 500, 1.5)).toEqual([125, 0, 750, 500]);
  expect(centredCrop(300, 600, 1.5)).toEqual([0, 200, 300, 200]);
  expect(centredCrop(640, 480, 640 / 480)).toEqual([0, 0, 640, 480]);
});
