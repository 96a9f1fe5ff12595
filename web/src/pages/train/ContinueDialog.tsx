// A dialog that continues the training of a run.

import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';

import type { RunSummary } from '../../api/previews';
import { Button } from '../../design/Button';
import { Dialog } from '../../design/Dialog';
import { Field, INPUT } from '../../forms/Field';
import { formErrorOf } from '../../forms/formErrors';
import { readNumber } from '../../forms/settingSchema';
import { formatDuration } from '../../lib/format';
import { startTraining } from './startTraining';

interface Props {
  project: string;
  run: RunSummary | null;
  onClose: () => void;
  onStarted: (run: string) => void;
}

export function ContinueDialog({ run, ...props }: Props) {
  return (
    <Dialog open={run !== null} onClose={props.onClose} title="Continue training">
      {run && <More run={run} {...props} />}
    </Dialog>
  );
}

const MORE = [60, 120, 600];
const RULE = { whole: false, min: 1, max: 1_000_000 };

function More({ project, run, onClose, onStarted }: Props & { run: RunSummary }) {
  const [text, write] = useState('120');
  const had = run.trained_seconds ?? 0;
  const read = readNumber(RULE, text);
  const more = 'value' in read && typeof read.value === 'number' ? read.value : null;
  const start = useMutation({
    mutationFn: (seconds: number) => startTraining(project, { verb: 'train', run: run.id, seconds }),
    onSuccess: () => onStarted(run.id),
  });
  const error = 'error' in read ? read.error : start.error ? formErrorOf(start.error).message : undefined;
  return (
    <form
      noValidate
      className="flex flex-col gap-4 text-sm"
      onSubmit={(event) => {
        event.preventDefault();
        if (more !== null) start.mutate(Math.ceil(had + more));
      }}
    >
      <p className="text-soft">
        Trained for {formatDuration(had)} so far. Training continues with the same settings, then evaluates
        again.
      </p>
      <Field name="Additional seconds" error={error}>
        {(wiring) => (
          <input
            {...wiring}
            type="number"
            min={1}
            step={10}
            className={INPUT}
            value={text}
            onChange={(event) => write(event.target.value)}
          />
        )}
      </Field>
      <div className="flex gap-2">
        {MORE.map((seconds) => (
          <Button key={seconds} small aria-pressed={more === seconds} onClick={() => write(String(seconds))}>
            {formatDuration(seconds).replace(' 00 s', '')}
          </Button>
        ))}
      </div>
      <div className="flex justify-end gap-2">
        <Button variant="quiet" onClick={onClose}>
          Cancel
        </Button>
        <Button type="submit" variant="primary" disabled={more === null || start.isPending}>
          Continue training
        </Button>
      </div>
    </form>
  );
}
