// Two points, the length between them, and what a unit of the scene is in metres: here, and in files of the run.

import { useCallback, useState } from 'react';

import { ask } from '../../api/client';
import type { Vector } from '../../geometry/vector';
import { complain, say as toast } from '../../design/Toasts';
import { useChosenRun } from '../../runs/useChosenRun';
import { lengthOf } from '../../geometry/length';
import { keepScale, readScale } from './scaleStorage';

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
  const { run } = useChosenRun(project);
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
      if (known !== null && run) scaleFiles(project, run.id, known, ends);
    },
  };
}

/** Files that are made of this run from now on are in metres. */
function scaleFiles(project: string, run: string, metres: number, [from, to]: Vector[]): void {
  if (!from || !to) return;
  ask(project, { verb: 'scale', run, metres, points: [from, to] })
    .then(() => toast('Files are now in metres'))
    .catch(complain);
}
