// The view of a photo of a capture: from its camera, towards the depth of the scene's centre.

import type { Capture, CaptureImage } from '../../api/previews';
import type { Vector } from '../../geometry/vector';
import type { View } from '../../geometry/camera';
import { add, dot, length, lerp, sub, scale } from '../../geometry/vector';

export function photoView(image: CaptureImage, capture: Pick<Capture, 'box' | 'up'>): View {
  const column = (k: number): Vector => [at(image, 0, k), at(image, 1, k), at(image, 2, k)];
  const [forward, position] = [column(2), column(3)];
  const [low, high] = capture.box;
  const reach = length(sub(high, low));
  const ahead = dot(sub(lerp(low, high, 0.5), position), forward);
  return {
    position,
    look_at: add(position, scale(forward, Math.max(ahead, reach / 20))),
    up: capture.up,
    fov: (2 * Math.atan(image.height / 2 / image.focal[1]) * 180) / Math.PI,
  };
}

const at = (image: CaptureImage, row: number, column: number): number =>
  image.world_from_cam[row]?.[column] ?? 0;
