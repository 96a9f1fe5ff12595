// One run: how far it is, how good it is, and what it sees.

import { ArrowRight } from 'lucide-react';
import { useState } from 'react';
import { Link } from 'wouter';

import { type RunSummary } from '../../api/previews';
import { useShownRun } from '../../state/queries';
import { Button } from '../../design/Button';
import { Figure, Panel } from '../../design/Card';
import { Meter } from '../../design/ProgressBar';
import { bytes, count, decibel, duration } from '../../lib/format';
import { Controls, JobDialog } from '../../jobs/JobDialog';
import { doing } from '../../jobs/jobLabels';
import { atWork } from '../../state/store';
import { Curves } from './MetricCurves';
import { LiveViews } from './HeldOutPreviews';
import { newest, type Point, speed } from './metrics';
import { type TrainingJob, usePoints, useTrainings } from './trainingJobs';
import { roomOf } from '../../runs/useChosenRun';
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
  const trainings = useTrainings(project, run);
  const job = trainings.at(-1);
  const points = usePoints(trainings);
  const shown = useShownRun(project, run).data ?? undefined;
  const method = summary?.method ?? shown?.method;
  const training = job !== undefined && atWork(job);
  return (
    <Panel
      title={training ? 'Training' : `Run${method ? `: ${methodName(method)}` : ''}`}
      aside={job && <Controls job={job} />}
    >
      <div className="flex flex-col gap-6">
        {job && <State job={job} />}
        {training && !points.length ? (
          <p className="text-sm text-soft">
            The first figures and pictures come after a few seconds of training.
          </p>
        ) : (
          <Figures points={points} summary={summary} count={shown?.count ?? null} training={training} />
        )}
        {shown && <Walk project={project} run={run} training={training} judged={summary?.psnr ?? null} />}
        <Curves points={points} />
        {shown && <LiveViews key={run} project={project} run={run} shown={shown} />}
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
          {stepping && job.seconds_left !== null && `${duration(job.seconds_left)} left`}
          <Button small look="quiet" onClick={() => open(true)}>
            Details
          </Button>
        </p>
      </div>
      {atWork(job) && (
        <Meter
          value={job.stage === 'train' ? reached : job.state === 'queued' || job.paused ? 0 : null}
          label="How far training has come"
        />
      )}
      {job.message && atWork(job) && <p className="text-soft">{job.message}</p>}
      <JobDialog id={opened ? job.id : null} onClose={() => open(false)} />
    </div>
  );
}

function stateOf(job: TrainingJob): string {
  if (job.state === 'cancelled') return 'Training was stopped. What it learned until then is kept.';
  const ready = job.stage === 'train' || job.state !== 'running' || job.paused || job.cancelling;
  return ready ? doing(job) : 'Getting the photos ready';
}

function Figures(props: {
  points: Point[];
  summary: RunSummary | undefined;
  count: number | null;
  training: boolean;
}) {
  const { points, summary, training } = props;
  const last = points.at(-1);
  const told = training ? undefined : summary; // of what was saved; the points may end before
  const step = told?.step ?? last?.step;
  const seconds = told?.trained_seconds ?? last?.seconds;
  const fast = training ? speed(points) : step && seconds ? step / seconds : null;
  const gaussians = told?.count ?? newest(points, 'gaussians') ?? props.count;
  const loss = newest(points, 'loss');
  const memory = training ? newest(points, 'memory') : null;
  const psnr = told?.psnr ?? newest(points, 'psnr');
  return (
    <dl className="grid grid-cols-2 gap-x-4 gap-y-5 sm:grid-cols-3 lg:grid-cols-6 [&_dd]:text-2xl [&_dd]:tracking-tight">
      <Figure name="PSNR">{decibel(psnr)}</Figure>
      <Figure name="Step">{step ? count(step) : '–'}</Figure>
      <Figure name="Speed">{fast ? `${fast < 10 ? fast.toFixed(1) : Math.round(fast)} steps/s` : '–'}</Figure>
      {gaussians !== null && <Figure name="Gaussians">{count(gaussians)}</Figure>}
      <Figure name="Loss">{loss === null ? '–' : loss.toFixed(4)}</Figure>
      {memory !== null && <Figure name="Memory">{bytes(memory)}</Figure>}
      <Figure name="Training time">
        {seconds === null || seconds === undefined ? '–' : duration(seconds)}
      </Figure>
    </dl>
  );
}

const LINK =
  'inline-flex h-10 items-center gap-2 rounded-lg px-4 text-sm font-medium whitespace-nowrap transition';

/** Where to go from here. While it trains, walking is possible already, but nothing is pressing. */
function Walk(props: { project: string; run: string; training: boolean; judged: number | null }) {
  const { project, run, training, judged } = props;
  return (
    <div className="flex flex-wrap gap-2">
      <Link
        href={roomOf(project, 'view', run)}
        className={`${LINK} ${training ? 'border border-line hover:bg-raised' : 'bg-sun text-sun-ink shadow-sm hover:brightness-105'}`}
      >
        Walk through it
        <ArrowRight className="size-4" aria-hidden />
      </Link>
      {!training && (
        <Link
          href={roomOf(project, 'evaluate', run)}
          className={`${LINK} text-soft hover:bg-raised hover:text-ink`}
        >
          {judged === null ? 'Compare with photos' : 'See how good it is'}
        </Link>
      )}
      {!training && (
        <Link
          href={roomOf(project, 'export', run)}
          className={`${LINK} text-soft hover:bg-raised hover:text-ink`}
        >
          Make a file of it
        </Link>
      )}
    </div>
  );
}
