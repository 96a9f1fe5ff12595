// What browser and server renderers offer to the page: picking and the canvas.

import type { Vector } from '../../geometry/vector';

export interface ViewerHandle {
  /** The scene point at normalized canvas coordinates (-1..1, right and up), or null. */
  pick: (x: number, y: number) => Vector | null;
  /** Draws the current view and returns the canvas. */
  draw: () => HTMLCanvasElement;
}

const [THUMBNAIL_WIDTH_PX, THUMBNAIL_HEIGHT_PX] = [96, 64];

/** Downloads the canvas over a background as a PNG. */
export async function saveImage(handle: ViewerHandle, background: string, name: string): Promise<void> {
  const view = handle.draw();
  const canvas = drawOver(view, background, view.width, view.height);
  const blob = canvas && (await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, 'image/png')));
  if (!blob) throw new Error('This browser cannot save an image of the scene.');
  const address = URL.createObjectURL(blob);
  const link = document.createElement('a');
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** The centre of the canvas as a small JPEG data: URL; null if the browser cannot encode it. */
export function captureThumbnail(handle: ViewerHandle, background: string): string | null {
  const canvas = drawOver(handle.draw(), background, THUMBNAIL_WIDTH_PX, THUMBNAIL_HEIGHT_PX);
  const dataUrl = canvas?.toDataURL('image/jpeg', 0.75) ?? '';
  return dataUrl.startsWith('data:image/jpeg') ? dataUrl : null;
}

/** A canvas of the given size, filled with the background and the centre of `source`. */
function drawOver(
  source: HTMLCanvasElement,
  background: string,
  width: number,
  height: number,
): HTMLCanvasElement | null {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext('2d');
  if (!context || !source.width || !source.height) return null;
  context.fillStyle = background;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(source, ...centredCrop(source.width, source.height, width / height), 0, 0, width, height);
  return canvas;
}

/** The largest centred crop of an aspect ratio (width / height): left, top, width, height. */
export function centredCrop(width: number, height: number, shape: number): [number, number, number, number] {
  const [w, h] = width > height * shape ? [height * shape, height] : [width, width / shape];
  return [(width - w) / 2, (height - h) / 2, w, h];
}
