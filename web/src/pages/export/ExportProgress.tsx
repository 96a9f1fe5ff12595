// The progress of an export, its report and its download.

import { CircleCheck, Download } from 'lucide-react';
import { Link } from 'wouter';

import type { Job } from '../../api/client';
import { artifactFile } from '../../api/previews';
import { ProgressBar } from '../../design/ProgressBar';
import { formatBytes, formatDuration } from '../../lib/format';
import { JobControls } from '../../jobs/JobDialog';
import { statusText } from '../../jobs/jobLabels';
import { isActive, useJob } from '../../state/store';
import { tabAddress } from '../../runs/useChosenRun';
import { useJobArtifacts } from '../../jobs/artifacts';
import { type Report, reportOf, isUnscaled, describeUpAxis, words } from './exportReport';

export function ExportProgress({
  project,
  run,
  id,
}: {
  project: string;
  run: string;
  id: string | undefined;
}) {
  const job = useJob(id);
  const report = reportOf(job);
  return (
    <div data-testid="export-progress" className={job ? 'mt-4 flex flex-col gap-3 text-sm' : ''}>
      <div role="status" className="empty:hidden">
        {report ? <Words report={report} /> : job && <Doing job={job} />}
      </div>
      {job && isActive(job) && <Work job={job} />}
      {isUnscaled(report) && <Unmeasured view={tabAddress(project, 'view', run)} />}
      <File job={job} />
    </div>
  );
}

function Words({ report }: { report: Report }) {
  return (
    <p className="flex gap-2">
      <CircleCheck className="mt-0.5 size-4 shrink-0 text-good" aria-hidden />
      <span>
        {words(report)}. <span className="text-soft">{describeUpAxis(report)}</span>
      </span>
    </p>
  );
}

function Doing({ job }: { job: Job }) {
  return <p className={job.state === 'failed' ? 'text-bad' : 'text-soft'}>{statusText(job)}</p>;
}

function Work({ job }: { job: Job }) {
  return (
    <div className="flex flex-wrap items-center gap-3">
      <div className="min-w-40 flex-1">
        <ProgressBar value={job.total ? job.done / job.total : null} label={statusText(job)} />
      </div>
      {job.state === 'running' && job.seconds_left !== null && (
        <span className="text-soft tabular-nums">{formatDuration(job.seconds_left)} left</span>
      )}
      <JobControls job={job} />
    </div>
  );
}

function Unmeasured({ view }: { view: string }) {
  return (
    <p className="max-w-2xl rounded-lg bg-raised px-3 py-2 text-soft">
      The scale of this scene is unknown, so lengths are not in metres.{' '}
      <Link href={view} className="font-medium text-sun-text underline">
        Measure a known length
      </Link>{' '}
      in the View tab, then export again.
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
      Download {file.name} ({formatBytes(file.bytes)})
    </a>
  );
}
