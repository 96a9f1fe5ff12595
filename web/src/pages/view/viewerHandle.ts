// What the page may ask of whatever shows the scene.

import type { Vector } from '../../geometry/vector';

export interface Eyes {
  /** The point of the scene at a place of the canvas, -1..1 to the right and up; null where there is none. */
  pick: (x: number, y: number) => Vector | null;
  /** The canvas as it would be drawn now. */
  draw: () => HTMLCanvasElement;
}

const [WIDE, HIGH] = [96, 64]; // of a small picture

/** A picture of the canvas before a background, as a download. */
export async function savePicture(eyes: Eyes, background: string, name: string): Promise<void> {
  const seen = eyes.draw();
  const canvas = painted(seen, background, seen.width, seen.height);
  const blob = canvas && (await new Promise<Blob | null>((done) => canvas.toBlob(done, 'image/png')));
  if (!blob) throw new Error('This browser cannot make a picture of the scene.');
  const address = URL.createObjectURL(blob);
  const link = document.createElement('a');
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** The middle of the canvas in a few kB, as a data: URL; null where the browser makes none. */
export function smallPicture(eyes: Eyes, background: string): string | null {
  const canvas = painted(eyes.draw(), background, WIDE, HIGH);
  const picture = canvas?.toDataURL('image/jpeg', 0.75) ?? '';
  return picture.startsWith('data:image/jpeg') ? picture : null;
}

/** What is seen before a background, so that it fills a canvas of this size. */
function painted(
  seen: HTMLCanvasElement,
  background: string,
  width: number,
  height: number,
): HTMLCanvasElement | null {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext('2d');
  if (!context || !seen.width || !seen.height) return null;
  context.fillStyle = background;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(seen, ...middle(seen.width, seen.height, width / height), 0, 0, width, height);
  return canvas;
}

/** The largest part of this shape (width by height) in the middle: left, top, width, height. */
export function middle(width: number, height: number, shape: number): [number, number, number, number] {
  const [w, h] = width > height * shape ? [height * shape, height] : [width, width / shape];
  return [(width - w) / 2, (height - h) / 2, w, h];
}
