// A file on its way, and what came of it.

import { CircleCheck, Download } from 'lucide-react';
import { Link } from 'wouter';

import type { Job } from '../../api/client';
import { artifactFile } from '../../api/previews';
import { Meter } from '../../design/ProgressBar';
import { bytes, duration } from '../../lib/format';
import { Controls } from '../../jobs/JobDialog';
import { doing } from '../../jobs/jobLabels';
import { atWork, useJob } from '../../state/store';
import { roomOf } from '../../runs/useChosenRun';
import { useJobArtifacts } from '../../jobs/artifacts';
import { type Report, reportOf, sizeless, upwards, words } from './exportReport';

export function Making({ project, run, id }: { project: string; run: string; id: string | undefined }) {
  const job = useJob(id);
  const report = reportOf(job);
  return (
    <div data-testid="making" className={job ? 'mt-4 flex flex-col gap-3 text-sm' : ''}>
      <div role="status" className="empty:hidden">
        {report ? <Words report={report} /> : job && <Doing job={job} />}
      </div>
      {job && atWork(job) && <Work job={job} />}
      {sizeless(report) && <Unmeasured view={roomOf(project, 'view', run)} />}
      <File job={job} />
    </div>
  );
}

function Words({ report }: { report: Report }) {
  return (
    <p className="flex gap-2">
      <CircleCheck className="mt-0.5 size-4 shrink-0 text-good" aria-hidden />
      <span>
        {words(report)}. <span className="text-soft">{upwards(report)}</span>
      </span>
    </p>
  );
}

function Doing({ job }: { job: Job }) {
  return <p className={job.state === 'failed' ? 'text-bad' : 'text-soft'}>{doing(job)}</p>;
}

function Work({ job }: { job: Job }) {
  return (
    <div className="flex flex-wrap items-center gap-3">
      <div className="min-w-40 flex-1">
        <Meter value={job.total ? job.done / job.total : null} label={doing(job)} />
      </div>
      {job.state === 'running' && job.seconds_left !== null && (
        <span className="text-soft tabular-nums">{duration(job.seconds_left)} left</span>
      )}
      <Controls job={job} />
    </div>
  );
}

function Unmeasured({ view }: { view: string }) {
  return (
    <p className="max-w-2xl rounded-lg bg-raised px-3 py-2 text-soft">
      Nobody has said how large this place is, so lengths in the file are not in metres.{' '}
      <Link href={view} className="font-medium text-sun-text underline">
        Measure something that you know the length of
      </Link>{' '}
      in the room View, then make the file again.
    </p>
  );
}

function File({ job }: { job: Job | undefined }) {
  const file = useJobArtifacts(job)[0];
  if (!file) return null;
  return (
    <a
      href={artifactFile(file.id)}
      download={file.name}
      className="inline-flex min-h-10 items-center gap-2 self-start rounded-lg border border-line px-4 py-2 font-medium break-all hover:bg-raised"
    >
      <Download className="size-4 shrink-0" aria-hidden />
      Download {file.name} ({bytes(file.bytes)})
    </a>
  );
}
