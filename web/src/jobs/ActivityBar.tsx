// The current job of a project, in one line.

import { useState } from 'react';

import type { Job } from '../api/client';
import { Button } from '../design/Button';
import { ProgressBar } from '../design/ProgressBar';
import { formatDuration } from '../lib/format';
import { isActive } from '../state/store';
import { JobDialog } from './JobDialog';
import { statusText } from './jobLabels';

export function ActivityBar({ jobs }: { jobs: Job[] }) {
  const [opened, open] = useState<string | null>(null);
  const waiting = jobs.filter(isActive);
  const job = waiting.find((candidate) => candidate.state === 'running') ?? waiting.at(-1);
  const failed = jobs[0]?.state === 'failed' ? jobs[0] : undefined;
  const displayedJob = job ?? failed;
  if (!displayedJob) return null;
  const part = displayedJob.total ? displayedJob.done / displayedJob.total : null;
  return (
    <div className="flex min-w-0 items-center gap-3 text-sm" data-testid="activity">
      {failed && !job ? (
        <span className="truncate text-bad">{statusText(failed)}</span>
      ) : (
        <>
          <span className="truncate text-soft">
            {statusText(displayedJob)}
            {displayedJob.seconds_left !== null &&
              displayedJob.state === 'running' &&
              `, ${formatDuration(displayedJob.seconds_left)} left`}
            {waiting.length > 1 && ` (${waiting.length - 1} more queued)`}
          </span>
          <div className="w-28">
            <ProgressBar value={part} label={statusText(displayedJob)} />
          </div>
        </>
      )}
      <Button small variant="quiet" onClick={() => open(displayedJob.id)}>
        Details
      </Button>
      <JobDialog id={opened} onClose={() => open(null)} />
    </div>
  );
}
