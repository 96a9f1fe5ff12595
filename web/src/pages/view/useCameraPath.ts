// The camera path of a run: saved in this browser, edited and played.

import { useEffect, useState } from 'react';

import type { View } from '../../geometry/camera';
import { type ViewerHandle, captureThumbnail } from './viewerHandle';
import { savePath, readPath } from './pathStorage';
import { duration, type KeyFrame, moveKeyFrame, viewAt } from '../../geometry/cameraPath';
import { newId } from '../../lib/id';
import type { CameraControls } from './cameraControls';

const SECONDS = 2;

export interface Path {
  keys: KeyFrame[];
  playing: number | null; // seconds from the start
  add: () => void;
  remove: (id: string) => void;
  move: (index: number, to: number) => void;
  time: (id: string, seconds: number) => void;
  show: (view: View) => void;
  clear: () => void;
  play: () => void;
  stop: () => void;
}

export function usePath(
  run: string,
  controls: CameraControls,
  handle: ViewerHandle | null,
  background: string,
): Path {
  const [keys, setKeys] = useState(() => readPath(run));
  const [playing, setPlaying] = useState<number | null>(null);
  useEffect(() => savePath(run, keys), [run, keys]);
  const add = () => {
    const picture = handle && captureThumbnail(handle, background);
    setKeys([...keys, { id: newId(), view: controls.view, seconds: SECONDS, picture }]);
  };
  return {
    keys,
    playing,
    add,
    remove: (id) => setKeys(keys.filter((key) => key.id !== id)),
    move: (index, to) => setKeys(moveKeyFrame(keys, index, to)),
    time: (id, seconds) => setKeys(keys.map((key) => (key.id === id ? { ...key, seconds } : key))),
    show: (view) => controls.glide(view),
    clear: () => setKeys([]),
    play: () => {
      const way = (seconds: number) => {
        setPlaying(seconds);
        return viewAt(keys, seconds);
      };
      controls.run(way, duration(keys), () => setPlaying(null));
    },
    stop: controls.stop,
  };
}
