// The key frames of a run: kept in this browser, and what can be done with them.

import { useEffect, useState } from 'react';

import type { View } from '../../geometry/camera';
import { type Eyes, smallPicture } from './viewerHandle';
import { keepPath, readPath } from './pathStorage';
import { duration, type KeyFrame, moved, viewAt } from '../../geometry/cameraPath';
import { newId } from '../../lib/id';
import type { Rig } from './cameraControls';

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

export function usePath(run: string, rig: Rig, eyes: Eyes | null, background: string): Path {
  const [keys, setKeys] = useState(() => readPath(run));
  const [playing, setPlaying] = useState<number | null>(null);
  useEffect(() => keepPath(run, keys), [run, keys]);
  const add = () => {
    const picture = eyes && smallPicture(eyes, background);
    setKeys([...keys, { id: newId(), view: rig.view, seconds: SECONDS, picture }]);
  };
  return {
    keys,
    playing,
    add,
    remove: (id) => setKeys(keys.filter((key) => key.id !== id)),
    move: (index, to) => setKeys(moved(keys, index, to)),
    time: (id, seconds) => setKeys(keys.map((key) => (key.id === id ? { ...key, seconds } : key))),
    show: (view) => rig.glide(view),
    clear: () => setKeys([]),
    play: () => {
      const way = (seconds: number) => {
        setPlaying(seconds);
        return viewAt(keys, seconds);
      };
      rig.run(way, duration(keys), () => setPlaying(null));
    },
    stop: rig.stop,
  };
}
