// What a project is doing right now, in one line.

import { useState } from 'react';

import type { Job } from '../api/client';
import { Button } from '../design/Button';
import { Meter } from '../design/ProgressBar';
import { duration } from '../lib/format';
import { atWork } from '../state/store';
import { JobDialog } from './JobDialog';
import { doing } from './jobLabels';

export function Activity({ jobs }: { jobs: Job[] }) {
  const [opened, open] = useState<string | null>(null);
  const waiting = jobs.filter(atWork);
  const job = waiting.find((one) => one.state === 'running') ?? waiting.at(-1);
  const failed = jobs[0]?.state === 'failed' ? jobs[0] : undefined;
  const shown = job ?? failed;
  if (!shown) return null;
  const part = shown.total ? shown.done / shown.total : null;
  return (
    <div className="flex min-w-0 items-center gap-3 text-sm" data-testid="activity">
      {failed && !job ? (
        <span className="truncate text-bad">{doing(failed)}</span>
      ) : (
        <>
          <span className="truncate text-soft">
            {doing(shown)}
            {shown.seconds_left !== null &&
              shown.state === 'running' &&
              `, ${duration(shown.seconds_left)} left`}
            {waiting.length > 1 && ` (${waiting.length - 1} more after it)`}
          </span>
          <div className="w-28">
            <Meter value={part} label={doing(shown)} />
          </div>
        </>
      )}
      <Button small look="quiet" onClick={() => open(shown.id)}>
        Details
      </Button>
      <JobDialog id={opened} onClose={() => open(null)} />
    </div>
  );
}
