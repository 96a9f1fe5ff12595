// The Train tab: from poses to a scene.

import { Camera } from 'lucide-react';
import { useRef, useState } from 'react';
import { Link } from 'wouter';

import type { Job } from '../../api/client';
import { useCapture } from '../../state/queries';
import { Button } from '../../design/Button';
import { Card, Empty } from '../../design/Card';
import { ProgressBar } from '../../design/ProgressBar';
import { formatDuration } from '../../lib/format';
import { statusText } from '../../jobs/jobLabels';
import { isActive, useJobs } from '../../state/store';
import { RunPanel } from './RunPanel';
import { isTraining, runOf } from './trainingJobs';
import { useChosenRun } from '../../runs/useChosenRun';
import { Runs } from './RunList';
import { TrainingForm } from './TrainingForm';

export function TrainTab({ project }: { project: string }) {
  const jobs = useJobs(project);
  const capture = useCapture(project);
  const { runs, run, named, choose, isPending } = useChosenRun(project);
  const [beginning, begin] = useState(false);
  const [posed, setPosed] = useState(false);
  const top = useRef<HTMLDivElement>(null);
  const scrollToTop = () => requestAnimationFrame(() => top.current?.scrollIntoView({ behavior: 'smooth' }));
  const finding = jobs.filter((job) => ['pose', 'sample'].includes(job.asked.verb) && isActive(job));
  const trainings = jobs.filter(isTraining);
  const busy = trainings.filter(isActive).map(runOf);
  const shown = named && trainings.some((job) => runOf(job) === named) ? named : (busy.at(-1) ?? run?.id);
  const started = trainings.length > 0 || runs.length > 0;
  const idle = !runs.length && !busy.length;
  const able = posed || Boolean(capture.data) || started || finding.length > 0 || jobs.some(bringsCameras);
  if (isPending || capture.isPending) return <p className="p-8 text-center text-sm text-soft">Loading …</p>;
  if (!able) return <NoCameras project={project} onPosed={() => setPosed(true)} />;
  return (
    <div ref={top} className="mx-auto flex w-full max-w-6xl flex-col gap-6 p-4 sm:p-6">
      {finding.map((job) => (
        <Finding key={job.id} job={job} />
      ))}
      {(beginning || idle) && (
        <TrainingForm
          project={project}
          needs={finding.map((job) => job.id)}
          onStarted={(id) => {
            begin(false);
            choose(id);
            scrollToTop();
          }}
          onClose={!idle ? () => begin(false) : undefined}
        />
      )}
      {shown && (
        <RunPanel key={shown} project={project} run={shown} summary={runs.find((one) => one.id === shown)} />
      )}
      {runs.length > 0 && (
        <Runs
          project={project}
          runs={runs}
          chosen={shown}
          busy={new Set(busy)}
          onChoose={(id) => {
            choose(id);
            scrollToTop();
          }}
          onNew={() => {
            begin(true);
            scrollToTop();
          }}
        />
      )}
    </div>
  );
}

const bringsCameras = (job: Job): boolean =>
  job.state === 'succeeded' && ['pose', 'sample'].includes(job.asked.verb);

function Finding({ job }: { job: Job }) {
  return (
    <Card className="flex flex-col gap-2 p-4 text-sm">
      <p className="flex justify-between gap-4">
        <span className="font-medium">{statusText(job)}</span>
        {job.seconds_left !== null && job.state === 'running' && (
          <span className="text-soft">{formatDuration(job.seconds_left)} left</span>
        )}
      </p>
      <ProgressBar value={job.total ? job.done / job.total : null} label={statusText(job)} />
      <p className="text-soft">Choose the settings now. Training starts when this is finished.</p>
    </Card>
  );
}

function NoCameras({ project, onPosed }: { project: string; onPosed: () => void }) {
  return (
    <Empty
      icon={<Camera />}
      title="No camera poses yet"
      action={
        <div className="flex flex-col items-center gap-2">
          <Link
            href={`/projects/${project}/photos`}
            className="inline-flex h-10 items-center rounded-lg bg-sun px-4 text-sm font-medium text-sun-ink shadow-sm hover:brightness-105"
          >
            Go to Photos
          </Link>
          <Button variant="quiet" small onClick={onPosed}>
            My photos have camera poses
          </Button>
        </div>
      }
    >
      Add photos and estimate their camera poses first. Then train here.
    </Empty>
  );
}
