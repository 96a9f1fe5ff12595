// The server's renders on a canvas, under the same camera.

import { useEffect, useRef } from 'react';

import type { ViewerHandle } from './viewerHandle';
import { liveAddress, LiveConnection, type Output, renderSize } from './liveConnection';
import { probe } from './probe';
import type { CameraControls } from './cameraControls';

export function ServerView({
  controls,
  project,
  run,
  output,
  onStatus,
  onHandle,
}: {
  controls: CameraControls;
  project: string;
  run: string;
  output: Output;
  onStatus: (text: string | null) => void;
  onHandle: (handle: ViewerHandle | null) => void;
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const link = useRef<LiveConnection | null>(null);

  useEffect(() => {
    const area = canvas.current;
    if (!area) return;
    onStatus('Starting the renderer …');
    const connection = new LiveConnection(liveAddress(project, run), {
      status: onStatus,
      frame: async (_, jpeg) => draw(area, jpeg),
    });
    link.current = connection;
    connection.move(controls.view);
    const stopListening = controls.listen(() => connection.move(controls.view));
    const resizeObserver = new ResizeObserver(() => {
      const size = renderSize(area.clientWidth, area.clientHeight);
      if (area.width === size[0] && area.height === size[1]) return;
      [area.width, area.height] = size;
      connection.set({ size });
    });
    resizeObserver.observe(area);
    onHandle({ pick: () => null, draw: () => area });
    return () => {
      stopListening();
      resizeObserver.disconnect();
      connection.close();
      link.current = null;
      onHandle(null);
      probe.loaded = null;
    };
  }, [controls, project, run, onStatus, onHandle]);

  useEffect(() => link.current?.set({ output }), [output, project, run]);

  return <canvas ref={canvas} aria-hidden className="absolute inset-0 size-full" />;
}

async function draw(canvas: HTMLCanvasElement, jpeg: Uint8Array<ArrayBuffer>): Promise<void> {
  const bitmap = await createImageBitmap(new Blob([jpeg], { type: 'image/jpeg' }));
  canvas.getContext('2d')?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  probe.frames++;
  probe.loaded = 'live';
}
