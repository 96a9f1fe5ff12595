// Details of a job: error, log, pause, resume and cancel.

import { useQuery } from '@tanstack/react-query';
import { Pause, Play, Square } from 'lucide-react';

import { http, type Job, unwrap } from '../api/client';
import { Button } from '../design/Button';
import { Dialog } from '../design/Dialog';
import { ProgressBar } from '../design/ProgressBar';
import { showError } from '../design/Toasts';
import { formatDuration } from '../lib/format';
import { isActive, useJob } from '../state/store';
import { statusText, jobName } from './jobLabels';

export function JobDialog({ id, onClose }: { id: string | null; onClose: () => void }) {
  const job = useJob(id ?? undefined);
  return (
    <Dialog open={job !== undefined} onClose={onClose} title={job ? jobName(job) : ''} wide>
      {job && <Details job={job} />}
    </Dialog>
  );
}

function Details({ job }: { job: Job }) {
  const log = useQuery({
    queryKey: ['log', job.id, job.state, job.attempt],
    queryFn: () =>
      unwrap(http.GET('/api/v1/jobs/{job}/log', { params: { path: { job: job.id } }, parseAs: 'text' })),
    refetchInterval: isActive(job) ? 3000 : false,
  });
  return (
    <div className="flex flex-col gap-4 text-sm">
      <p className={job.state === 'failed' ? 'text-bad' : ''}>{statusText(job)}</p>
      {job.message && job.state !== 'failed' && <p className="text-soft">{job.message}</p>}
      {job.state === 'running' && (
        <ProgressBar value={job.total ? job.done / job.total : null} label={statusText(job)} />
      )}
      {job.crashes > 0 && (
        <p className="text-soft">
          The worker crashed {job.crashes} {job.crashes === 1 ? 'time' : 'times'}. The job continues from its
          last checkpoint.
        </p>
      )}
      {job.started !== null && job.finished !== null && (
        <p className="text-soft">Duration: {formatDuration(job.finished - job.started)}.</p>
      )}
      <JobControls job={job} />
      <details open={job.state === 'failed'}>
        <summary className="cursor-pointer text-soft">Log</summary>
        <pre className="mt-2 max-h-80 overflow-auto rounded-lg bg-raised p-3 text-xs whitespace-pre-wrap">
          {String(log.data ?? '') || 'The log is empty.'}
        </pre>
      </details>
    </div>
  );
}

/** Buttons to pause, resume or cancel, while the job is active. */
export function JobControls({ job }: { job: Job }) {
  const post = (action: 'pause' | 'resume' | 'cancel') => () => {
    const params = { params: { path: { job: job.id } } };
    const response =
      action === 'pause'
        ? http.POST('/api/v1/jobs/{job}/pause', params)
        : action === 'resume'
          ? http.POST('/api/v1/jobs/{job}/resume', params)
          : http.POST('/api/v1/jobs/{job}/cancel', params);
    unwrap(response).catch(showError);
  };
  if (!isActive(job)) return null;
  return (
    <div className="flex gap-2">
      {job.paused ? (
        <Button small icon={<Play className="size-4" />} onClick={post('resume')}>
          Resume
        </Button>
      ) : (
        <Button small icon={<Pause className="size-4" />} onClick={post('pause')}>
          Pause
        </Button>
      )}
      <Button
        small
        variant="danger"
        icon={<Square className="size-4" />}
        disabled={job.cancelling}
        onClick={post('cancel')}
      >
        Cancel
      </Button>
    </div>
  );
}
