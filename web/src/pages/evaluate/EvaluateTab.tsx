// The Evaluate tab: metrics and images of held-out views.

import { useMutation } from '@tanstack/react-query';
import { FileText, Gauge } from 'lucide-react';

import { submitJob } from '../../api/client';
import { artifactFile, type RunSummary, type EvaluationPreview } from '../../api/previews';
import { useEvaluation } from '../../state/queries';
import { Button } from '../../design/Button';
import { Card, Empty, Metric } from '../../design/Card';
import { ProgressBar } from '../../design/ProgressBar';
import { showError } from '../../design/Toasts';
import { useArtifacts } from '../../jobs/artifacts';
import { formatCount, formatDecibels, formatDuration } from '../../lib/format';
import { JobControls } from '../../jobs/JobDialog';
import { statusText } from '../../jobs/jobLabels';
import { isActive, useJobs } from '../../state/store';
import { useChosenRun } from '../../runs/useChosenRun';
import { RunSelect } from '../../runs/RunSelect';
import { NoRuns } from '../../runs/NoRuns';
import { ViewBrowser } from './ViewBrowser';

export function EvaluateTab({ project }: { project: string }) {
  const { runs, run, choose, isPending } = useChosenRun(project);
  const { data: evaluation } = useEvaluation(project, run?.id);
  if (isPending) return <p className="p-8 text-center text-sm text-soft">Loading …</p>;
  if (!run) return <NoRuns project={project} />;
  return (
    <div className="mx-auto flex w-full max-w-7xl flex-col gap-6 p-4 sm:p-6">
      <RunSelect runs={runs} run={run} onChoose={choose} />
      <EvaluationStatus project={project} run={run} evaluation={evaluation ?? null} />
      {evaluation && (
        <>
          <Summary project={project} run={run} evaluation={evaluation} />
          <ViewBrowser key={run.id} project={project} run={run.id} views={evaluation.views} />
        </>
      )}
    </div>
  );
}

interface Props {
  project: string;
  run: RunSummary;
}

/** The running evaluation, its error, or a button to start one. */
function EvaluationStatus({ project, run, evaluation }: Props & { evaluation: EvaluationPreview | null }) {
  const jobs = useJobs(project).filter((job) => job.asked.verb === 'evaluate' && job.asked.run === run.id);
  const start = useMutation({
    mutationFn: () => submitJob(project, { verb: 'evaluate', run: run.id }),
    onError: showError,
  });
  const job = jobs[0];
  if (job && isActive(job)) {
    return (
      <Card className="flex flex-col gap-3 p-4 text-sm">
        <p className="font-medium">{statusText(job)}</p>
        <ProgressBar value={job.total ? job.done / job.total : null} label={statusText(job)} />
        <JobControls job={job} />
      </Card>
    );
  }
  const button = (
    <Button variant="primary" disabled={start.isPending} onClick={() => start.mutate()}>
      {evaluation ? 'Evaluate again' : 'Evaluate on held-out views'}
    </Button>
  );
  if (!evaluation) {
    return (
      <Card>
        <Empty icon={<Gauge />} title="Not evaluated yet" action={button}>
          {job?.state === 'failed'
            ? statusText(job)
            : 'Evaluation compares renders with photos held out from training.'}
        </Empty>
      </Card>
    );
  }
  if (!isOlder(evaluation, run)) return null;
  return (
    <Card className="flex flex-wrap items-center justify-between gap-3 p-4 text-sm">
      <p className="text-soft">This run was trained further since its evaluation.</p>
      {button}
    </Card>
  );
}

/** An evaluation with the fields that older servers lack. */
type Evaluated = EvaluationPreview & { step?: number; seconds?: number; total?: number };

const isOlder = (evaluation: Evaluated, run: RunSummary): boolean =>
  evaluation.step !== undefined && evaluation.step < (run.step ?? 0);

function Summary({ project, run, evaluation }: Props & { evaluation: Evaluated }) {
  const jobs = useJobs(project).filter((job) => job.asked.verb === 'evaluate' && job.asked.run === run.id);
  const report = useArtifacts(project).find(
    (one) => one.name === 'report.html' && jobs.some((job) => job.id === one.job),
  );
  const total = evaluation.total ?? evaluation.views.length;
  const left = total - evaluation.views.length;
  return (
    <Card className="flex flex-wrap items-center justify-between gap-x-8 gap-y-4 p-4">
      <dl className="grid grid-cols-2 gap-x-8 gap-y-4 sm:grid-cols-4 [&_dd]:text-2xl [&_dd]:tracking-tight">
        <Metric name="PSNR">{formatDecibels(evaluation.psnr)}</Metric>
        <Metric name="SSIM">{evaluation.ssim === null ? '–' : evaluation.ssim.toFixed(3)}</Metric>
        <Metric name={left > 0 ? `Views (${formatCount(left)} best not shown)` : 'Views'}>
          {formatCount(total)}
        </Metric>
        <Metric name="Training time">{formatDuration(evaluation.seconds ?? run.trained_seconds ?? 0)}</Metric>
      </dl>
      {report && (
        <a
          href={artifactFile(report.id)}
          target="_blank"
          rel="noreferrer"
          className="inline-flex h-10 items-center gap-2 rounded-lg border border-line px-4 text-sm font-medium hover:bg-raised"
        >
          <FileText className="size-4" aria-hidden />
          Report
        </a>
      )}
    </Card>
  );
}
