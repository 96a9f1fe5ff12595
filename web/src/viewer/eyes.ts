// What the page may ask of whatever shows the scene.

import type { Vector } from '../api/shown';

export interface Eyes {
  /** The point of the scene at a place of the canvas, -1..1 to the right and up; null where there is none. */
  pick: (x: number, y: number) => Vector | null;
  /** The canvas as it would be drawn now. */
  draw: () => HTMLCanvasElement;
}

/** A picture of the canvas before a background, as a download. */
export async function savePicture(eyes: Eyes, background: string, name: string): Promise<void> {
  const seen = eyes.draw();
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [seen.width, seen.height];
  const context = canvas.getContext('2d');
  if (!context) throw new Error('This browser cannot make a picture of the scene.');
  context.fillStyle = background;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(seen, 0, 0);
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, 'image/png'));
  if (!blob) throw new Error('This browser cannot make a picture of the scene.');
  const address = URL.createObjectURL(blob);
  const link = document.createElement('a');
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
