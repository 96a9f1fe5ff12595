// Two points, the length between them, and what a unit of the scene is in metres.

import { useCallback, useState } from 'react';

import type { Vector } from '../api/shown';
import { keepScale, lengthOf, readScale } from './measure';

export interface Measure {
  on: boolean;
  ends: Vector[];
  units: number | null;
  metres: number | null; // in a unit
  toggle: () => void;
  add: (point: Vector) => void;
  clear: () => void;
  /** The length between the ends is so many metres; null forgets what was said. */
  say: (metres: number | null) => void;
}

export function useMeasure(project: string): Measure {
  const [on, setOn] = useState(false);
  const [ends, setEnds] = useState<Vector[]>([]);
  const [metres, setMetres] = useState(() => readScale(project));
  const units = lengthOf(ends);
  const clear = useCallback(() => setEnds([]), []);
  return {
    on,
    ends,
    units,
    metres,
    clear,
    toggle: () => {
      setOn(!on);
      setEnds([]);
    },
    add: (point) => setEnds((before) => (before.length === 1 ? [...before, point] : [point])),
    say: (known) => {
      const scale = known === null || !units ? null : known / units;
      keepScale(project, scale);
      setMetres(scale);
    },
  };
}
