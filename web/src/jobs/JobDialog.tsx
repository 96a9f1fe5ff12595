// A job with all that is known of it: what went wrong, its log, and the ways to hold or end it.

import { useQuery } from '@tanstack/react-query';
import { Pause, Play, Square } from 'lucide-react';

import { http, type Job, told } from '../api/client';
import { Button } from '../design/Button';
import { Dialog } from '../design/Dialog';
import { Meter } from '../design/ProgressBar';
import { complain } from '../design/Toasts';
import { duration } from '../lib/format';
import { atWork, useJob } from '../state/store';
import { doing, noun } from './jobLabels';

export function JobDialog({ id, onClose }: { id: string | null; onClose: () => void }) {
  const job = useJob(id ?? undefined);
  return (
    <Dialog open={job !== undefined} onClose={onClose} title={job ? noun(job) : ''} wide>
      {job && <Details job={job} />}
    </Dialog>
  );
}

function Details({ job }: { job: Job }) {
  const log = useQuery({
    queryKey: ['log', job.id, job.state, job.attempt],
    queryFn: () =>
      told(http.GET('/api/v1/jobs/{job}/log', { params: { path: { job: job.id } }, parseAs: 'text' })),
    refetchInterval: atWork(job) ? 3000 : false,
  });
  return (
    <div className="flex flex-col gap-4 text-sm">
      <p className={job.state === 'failed' ? 'text-bad' : ''}>{doing(job)}</p>
      {job.message && job.state !== 'failed' && <p className="text-soft">{job.message}</p>}
      {job.state === 'running' && (
        <Meter value={job.total ? job.done / job.total : null} label={doing(job)} />
      )}
      {job.crashes > 0 && (
        <p className="text-soft">
          Its worker ended {job.crashes} {job.crashes === 1 ? 'time' : 'times'} without being asked; it goes
          on from what was saved.
        </p>
      )}
      {job.started !== null && job.finished !== null && (
        <p className="text-soft">It took {duration(job.finished - job.started)}.</p>
      )}
      <Controls job={job} />
      <details open={job.state === 'failed'}>
        <summary className="cursor-pointer text-soft">Log</summary>
        <pre className="mt-2 max-h-80 overflow-auto rounded-lg bg-raised p-3 text-xs whitespace-pre-wrap">
          {String(log.data ?? '') || 'Nothing was printed.'}
        </pre>
      </details>
    </div>
  );
}

/** Pause, resume, cancel: whichever is possible now. */
export function Controls({ job }: { job: Job }) {
  const post = (what: 'pause' | 'resume' | 'cancel') => () => {
    const params = { params: { path: { job: job.id } } };
    const asked =
      what === 'pause'
        ? http.POST('/api/v1/jobs/{job}/pause', params)
        : what === 'resume'
          ? http.POST('/api/v1/jobs/{job}/resume', params)
          : http.POST('/api/v1/jobs/{job}/cancel', params);
    told(asked).catch(complain);
  };
  if (!atWork(job)) return null;
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
        look="danger"
        icon={<Square className="size-4" />}
        disabled={job.cancelling}
        onClick={post('cancel')}
      >
        Cancel
      </Button>
    </div>
  );
}
