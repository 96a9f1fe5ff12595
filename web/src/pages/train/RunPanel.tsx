// A run: progress, metrics, curves and held-out views.

import { ArrowRight } from 'lucide-react';
import { useState } from 'react';
import { Link } from 'wouter';

import { type RunSummary } from '../../api/previews';
import { useRunPreview } from '../../state/queries';
import { Button } from '../../design/Button';
import { Metric, Panel } from '../../design/Card';
import { ProgressBar } from '../../design/ProgressBar';
import { formatBytes, formatCount, formatDecibels, formatDuration } from '../../lib/format';
import { JobControls, JobDialog } from '../../jobs/JobDialog';
import { statusText } from '../../jobs/jobLabels';
import { isActive } from '../../state/store';
import { MetricCurves } from './MetricCurves';
import { HeldOutPreviews } from './HeldOutPreviews';
import { latestValue, type MetricPoint, stepsPerSecond } from './metrics';
import { type TrainingJob, useMetricPoints, useTrainingJobs } from './trainingJobs';
import { tabAddress } from '../../runs/useChosenRun';
import { methodName } from '../../runs/methodLabels';

export function RunPanel({
  project,
  run,
  summary,
}: {
  project: string;
  run: string;
  summary: RunSummary | undefined;
}) {
  const trainings = useTrainingJobs(project, run);
  const job = trainings.at(-1);
  const points = useMetricPoints(trainings);
  const shown = useRunPreview(project, run).data ?? undefined;
  const method = summary?.method ?? shown?.method;
  const training = job !== undefined && isActive(job);
  return (
    <Panel
      title={training ? 'Training' : `Run${method ? `: ${methodName(method)}` : ''}`}
      aside={job && <JobControls job={job} />}
    >
      <div className="flex flex-col gap-6">
        {job && <State job={job} />}
        {training && !points.length ? (
          <p className="text-sm text-soft">The first metrics and images appear after a few seconds.</p>
        ) : (
          <RunMetrics points={points} summary={summary} count={shown?.count ?? null} training={training} />
        )}
        {shown && (
          <NextSteps project={project} run={run} training={training} judged={summary?.psnr ?? null} />
        )}
        <MetricCurves points={points} />
        {shown && <HeldOutPreviews key={run} project={project} run={run} shown={shown} />}
      </div>
    </Panel>
  );
}

function State({ job }: { job: TrainingJob }) {
  const [opened, open] = useState(false);
  if (job.state === 'succeeded') return null;
  const stepping = job.state === 'running' && job.stage === 'train';
  const reached = job.total ? job.done / job.total : null;
  return (
    <div className="flex flex-col gap-2 text-sm">
      <div className="flex flex-wrap items-center justify-between gap-x-4 gap-y-1">
        <p className={job.state === 'failed' ? 'text-bad' : 'font-medium'}>{stateOf(job)}</p>
        <p className="flex items-center gap-2 text-soft tabular-nums">
          {stepping && job.seconds_left !== null && `${formatDuration(job.seconds_left)} left`}
          <Button small variant="quiet" onClick={() => open(true)}>
            Details
          </Button>
        </p>
      </div>
      {isActive(job) && (
        <ProgressBar
          value={job.stage === 'train' ? reached : job.state === 'queued' || job.paused ? 0 : null}
          label="Training progress"
        />
      )}
      {job.message && isActive(job) && <p className="text-soft">{job.message}</p>}
      <JobDialog id={opened ? job.id : null} onClose={() => open(false)} />
    </div>
  );
}

function stateOf(job: TrainingJob): string {
  if (job.state === 'cancelled') return 'Training was cancelled. The last checkpoint is kept.';
  const ready = job.stage === 'train' || job.state !== 'running' || job.paused || job.cancelling;
  return ready ? statusText(job) : 'Preparing the photos';
}

function RunMetrics(props: {
  points: MetricPoint[];
  summary: RunSummary | undefined;
  count: number | null;
  training: boolean;
}) {
  const { points, summary, training } = props;
  const last = points.at(-1);
  const unwrap = training ? undefined : summary; // of the checkpoint; the points may end earlier
  const step = unwrap?.step ?? last?.step;
  const seconds = unwrap?.trained_seconds ?? last?.seconds;
  const fast = training ? stepsPerSecond(points) : step && seconds ? step / seconds : null;
  const gaussians = unwrap?.count ?? latestValue(points, 'gaussians') ?? props.count;
  const loss = latestValue(points, 'loss');
  const memory = training ? latestValue(points, 'memory') : null;
  const psnr = unwrap?.psnr ?? latestValue(points, 'psnr');
  return (
    <dl className="grid grid-cols-2 gap-x-4 gap-y-5 sm:grid-cols-3 lg:grid-cols-6 [&_dd]:text-2xl [&_dd]:tracking-tight">
      <Metric name="PSNR">{formatDecibels(psnr)}</Metric>
      <Metric name="Step">{step ? formatCount(step) : '–'}</Metric>
      <Metric name="Speed">{fast ? `${fast < 10 ? fast.toFixed(1) : Math.round(fast)} steps/s` : '–'}</Metric>
      {gaussians !== null && <Metric name="Gaussians">{formatCount(gaussians)}</Metric>}
      <Metric name="Loss">{loss === null ? '–' : loss.toFixed(4)}</Metric>
      {memory !== null && <Metric name="Memory">{formatBytes(memory)}</Metric>}
      <Metric name="Training time">
        {seconds === null || seconds === undefined ? '–' : formatDuration(seconds)}
      </Metric>
    </dl>
  );
}

const LINK =
  'inline-flex h-10 items-center gap-2 rounded-lg px-4 text-sm font-medium whitespace-nowrap transition';

/** Links to the next tabs. During training only the viewer, as a secondary button. */
function NextSteps(props: { project: string; run: string; training: boolean; judged: number | null }) {
  const { project, run, training, judged } = props;
  return (
    <div className="flex flex-wrap gap-2">
      <Link
        href={tabAddress(project, 'view', run)}
        className={`${LINK} ${training ? 'border border-line hover:bg-raised' : 'bg-sun text-sun-ink shadow-sm hover:brightness-105'}`}
      >
        View the scene
        <ArrowRight className="size-4" aria-hidden />
      </Link>
      {!training && (
        <Link
          href={tabAddress(project, 'evaluate', run)}
          className={`${LINK} text-soft hover:bg-raised hover:text-ink`}
        >
          {judged === null ? 'Evaluate' : 'See the evaluation'}
        </Link>
      )}
      {!training && (
        <Link
          href={tabAddress(project, 'export', run)}
          className={`${LINK} text-soft hover:bg-raised hover:text-ink`}
        >
          Export
        </Link>
      )}
    </div>
  );
}
