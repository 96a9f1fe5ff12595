// The key frames of a run: kept in this browser, and what can be done with them.

import { useEffect, useState } from 'react';

import type { View } from './camera';
import { duration, type KeyFrame, moved, viewAt } from './path';
import type { Rig } from './rig';

const KEY = (run: string) => `lumigraph.path.${run}`;
const SECONDS = 2;

function read(run: string): KeyFrame[] {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY(run)) ?? '[]') as KeyFrame[];
    return Array.isArray(kept) ? kept.filter((key) => key.view?.position?.length === 3) : [];
  } catch {
    return [];
  }
}

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

export function usePath(run: string, rig: Rig): Path {
  const [keys, setKeys] = useState(() => read(run));
  const [playing, setPlaying] = useState<number | null>(null);
  useEffect(() => localStorage.setItem(KEY(run), JSON.stringify(keys)), [run, keys]);
  return {
    keys,
    playing,
    add: () => setKeys([...keys, { id: crypto.randomUUID(), view: rig.view, seconds: SECONDS }]),
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
