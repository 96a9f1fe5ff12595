// A run goes on from where it stopped.

import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';

import type { RunSummary } from '../../api/previews';
import { Button } from '../../design/Button';
import { Dialog } from '../../design/Dialog';
import { Field, INPUT } from '../../forms/Field';
import { refusedBy } from '../../forms/formErrors';
import { readNumber } from '../../forms/settingSchema';
import { duration } from '../../lib/format';
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
const RULE = { whole: false, least: 1, most: 1_000_000 };

function More({ project, run, onClose, onStarted }: Props & { run: RunSummary }) {
  const [text, write] = useState('120');
  const had = run.trained_seconds ?? 0;
  const read = readNumber(RULE, text);
  const more = 'value' in read && typeof read.value === 'number' ? read.value : null;
  const start = useMutation({
    mutationFn: (seconds: number) => startTraining(project, { verb: 'train', run: run.id, seconds }),
    onSuccess: () => onStarted(run.id),
  });
  const fault = 'fault' in read ? read.fault : start.error ? refusedBy(start.error).why : undefined;
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
        It was trained for {duration(had)}. It goes on from there, with the settings it has, and is then
        compared with photos again.
      </p>
      <Field name="Seconds more" fault={fault}>
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
            {duration(seconds).replace(' 00 s', '')}
          </Button>
        ))}
      </div>
      <div className="flex justify-end gap-2">
        <Button look="quiet" onClick={onClose}>
          Not now
        </Button>
        <Button type="submit" look="primary" disabled={more === null || start.isPending}>
          Continue training
        </Button>
      </div>
    </form>
  );
}
