// Measures between two points, and sets the scale of the scene: in this browser, and for files of the run.

import { useCallback, useState } from 'react';

import { submitJob } from '../../api/client';
import type { Vector } from '../../geometry/vector';
import { showError, showMessage as toast } from '../../design/Toasts';
import { useChosenRun } from '../../runs/useChosenRun';
import { lineLength } from '../../geometry/length';
import { saveScale, readScale } from './scaleStorage';

export interface Measure {
  on: boolean;
  ends: Vector[];
  units: number | null;
  metres: number | null; // per unit
  toggle: () => void;
  add: (point: Vector) => void;
  clear: () => void;
  /** Sets the length of the line in metres; null removes the scale. */
  say: (metres: number | null) => void;
}

export function useMeasure(project: string): Measure {
  const [on, setOn] = useState(false);
  const [ends, setEnds] = useState<Vector[]>([]);
  const [metres, setMetres] = useState(() => readScale(project));
  const units = lineLength(ends);
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
      saveScale(project, scale);
      setMetres(scale);
      if (known !== null && run) scaleFiles(project, run.id, known, ends);
    },
  };
}

/** Submits the scale, so that later files of the run are in metres. */
function scaleFiles(project: string, run: string, metres: number, [from, to]: Vector[]): void {
  if (!from || !to) return;
  submitJob(project, { verb: 'scale', run, metres, points: [from, to] })
    .then(() => toast('New files are in metres.'))
    .catch(showError);
}
