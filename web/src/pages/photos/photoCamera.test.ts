import { expect, test } from 'vitest';

import type { CaptureImage } from '../../api/previews';
import { worldFromCam } from '../../geometry/camera';
import { photoView } from './photoCamera';

const matrix = worldFromCam({ position: [3, -1, 2], look_at: [0, 0, 0], up: [0, 0, 1] });
const image: CaptureImage = {
  name: 'a.jpg',
  thumb: 'thumbs/0000.jpg',
  width: 640,
  height: 480,
  focal: [240, 240],
  centre: [320, 240],
  world_from_cam: matrix as CaptureImage['world_from_cam'],
  held_out: false,
};

test('photoView: has the pose of the photo', () => {
  const view = photoView(image, { box: [[-1, -1, -1], [1, 1, 1]], up: [0, 0, 1] }); // prettier-ignore
  expect(view.position).toEqual([3, -1, 2]);
  expect(view.fov).toBeCloseTo(90, 9); // the height is twice the focal length
  view.look_at.forEach((value) => expect(value).toBeCloseTo(0, 9)); // the centre of the box is straight ahead
  worldFromCam(view).forEach((row, i) =>
    row.forEach((value, k) => expect(value).toBeCloseTo(image.world_from_cam[i]?.[k] ?? NaN, 9)),
  );
});

test('photoView: looks ahead if the camera faces away from the scene', () => {
  const view = photoView(image, { box: [[8, -4, 4], [10, -2, 6]], up: [0, 0, 1] }); // prettier-ignore
  const ahead = [-3, 1, -2]; // from the camera to the origin
  const towards = view.look_at.map((value, i) => value - (view.position[i] ?? 0));
  expect(towards.reduce((sum, value, i) => sum + value * (ahead[i] ?? 0), 0)).toBeGreaterThan(0);
});
