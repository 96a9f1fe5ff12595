// The scene as the server renders it: its pictures on a canvas, under the same camera.

import { useEffect, useRef } from 'react';

import type { Eyes } from './viewerHandle';
import { liveAddress, LiveLink, type Output, pictureSize } from './liveConnection';
import { probe } from './probe';
import type { Rig } from './cameraControls';

export function ServerView({
  rig,
  project,
  run,
  output,
  onWords,
  onEyes,
}: {
  rig: Rig;
  project: string;
  run: string;
  output: Output;
  onWords: (text: string | null) => void;
  onEyes: (eyes: Eyes | null) => void;
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const link = useRef<LiveLink | null>(null);

  useEffect(() => {
    const area = canvas.current;
    if (!area) return;
    onWords('Starting the renderer …');
    const made = new LiveLink(liveAddress(project, run), {
      words: onWords,
      frame: async (_, jpeg) => draw(area, jpeg),
    });
    link.current = made;
    made.move(rig.view);
    const deaf = rig.listen(() => made.move(rig.view));
    const watch = new ResizeObserver(() => {
      const size = pictureSize(area.clientWidth, area.clientHeight);
      if (area.width === size[0] && area.height === size[1]) return;
      [area.width, area.height] = size;
      made.set({ size });
    });
    watch.observe(area);
    onEyes({ pick: () => null, draw: () => area });
    return () => {
      deaf();
      watch.disconnect();
      made.close();
      link.current = null;
      onEyes(null);
      probe.loaded = null;
    };
  }, [rig, project, run, onWords, onEyes]);

  useEffect(() => link.current?.set({ output }), [output, project, run]);

  return <canvas ref={canvas} aria-hidden className="absolute inset-0 size-full" />;
}

async function draw(canvas: HTMLCanvasElement, jpeg: Uint8Array<ArrayBuffer>): Promise<void> {
  const picture = await createImageBitmap(new Blob([jpeg], { type: 'image/jpeg' }));
  canvas.getContext('2d')?.drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  probe.frames++;
  probe.loaded = 'live';
}
