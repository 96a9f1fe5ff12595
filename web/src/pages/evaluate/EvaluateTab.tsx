// How good a run is on photos it never saw.

import { useMutation } from '@tanstack/react-query';
import { FileText, Gauge } from 'lucide-react';

import { ask } from '../../api/client';
import { artifactFile, type RunSummary, type ShownEvaluation } from '../../api/previews';
import { useEvaluation } from '../../state/queries';
import { Button } from '../../design/Button';
import { Card, Empty, Figure } from '../../design/Card';
import { Meter } from '../../design/ProgressBar';
import { complain } from '../../design/Toasts';
import { useArtifacts } from '../../jobs/artifacts';
import { count, decibel, duration } from '../../lib/format';
import { Controls } from '../../jobs/JobDialog';
import { doing } from '../../jobs/jobLabels';
import { atWork, useJobs } from '../../state/store';
import { useChosenRun } from '../../runs/useChosenRun';
import { RunSelect } from '../../runs/RunSelect';
import { NoRuns } from '../../runs/NoRuns';
import { Views } from './ViewBrowser';

export function EvaluateTab({ project }: { project: string }) {
  const { runs, run, choose, isPending } = useChosenRun(project);
  const { data: evaluation } = useEvaluation(project, run?.id);
  if (isPending) return <p className="p-8 text-center text-sm text-soft">One moment …</p>;
  if (!run) return <NoRuns project={project} />;
  return (
    <div className="mx-auto flex w-full max-w-7xl flex-col gap-6 p-4 sm:p-6">
      <RunSelect runs={runs} run={run} onChoose={choose} />
      <Judging project={project} run={run} evaluation={evaluation ?? null} />
      {evaluation && (
        <>
          <Summary project={project} run={run} evaluation={evaluation} />
          <Views key={run.id} project={project} run={run.id} views={evaluation.views} />
        </>
      )}
    </div>
  );
}

interface Props {
  project: string;
  run: RunSummary;
}

/** What is being compared, what could not be, or the way to ask for it. */
function Judging({ project, run, evaluation }: Props & { evaluation: ShownEvaluation | null }) {
  const jobs = useJobs(project).filter((job) => job.asked.verb === 'evaluate' && job.asked.run === run.id);
  const start = useMutation({
    mutationFn: () => ask(project, { verb: 'evaluate', run: run.id }),
    onError: complain,
  });
  const job = jobs[0];
  if (job && atWork(job)) {
    return (
      <Card className="flex flex-col gap-3 p-4 text-sm">
        <p className="font-medium">{doing(job)}</p>
        <Meter value={job.total ? job.done / job.total : null} label={doing(job)} />
        <Controls job={job} />
      </Card>
    );
  }
  const button = (
    <Button look="primary" disabled={start.isPending} onClick={() => start.mutate()}>
      {evaluation ? 'Compare again' : 'Compare with photos it never saw'}
    </Button>
  );
  if (!evaluation) {
    return (
      <Card>
        <Empty icon={<Gauge />} title="Not compared yet" action={button}>
          {job?.state === 'failed'
            ? doing(job)
            : 'Some photos were kept back from training. They show how good the scene really is.'}
        </Empty>
      </Card>
    );
  }
  if (!isOlder(evaluation, run)) return null;
  return (
    <Card className="flex flex-wrap items-center justify-between gap-3 p-4 text-sm">
      <p className="text-soft">This run has learned more since it was compared.</p>
      {button}
    </Card>
  );
}

/** The server tells more of an evaluation than every page needs. */
type Judged = ShownEvaluation & { step?: number; seconds?: number; total?: number };

const isOlder = (evaluation: Judged, run: RunSummary): boolean =>
  evaluation.step !== undefined && evaluation.step < (run.step ?? 0);

function Summary({ project, run, evaluation }: Props & { evaluation: Judged }) {
  const jobs = useJobs(project).filter((job) => job.asked.verb === 'evaluate' && job.asked.run === run.id);
  const report = useArtifacts(project).find(
    (one) => one.name === 'report.html' && jobs.some((job) => job.id === one.job),
  );
  const total = evaluation.total ?? evaluation.views.length;
  const left = total - evaluation.views.length;
  return (
    <Card className="flex flex-wrap items-center justify-between gap-x-8 gap-y-4 p-4">
      <dl className="grid grid-cols-2 gap-x-8 gap-y-4 sm:grid-cols-4 [&_dd]:text-2xl [&_dd]:tracking-tight">
        <Figure name="PSNR">{decibel(evaluation.psnr)}</Figure>
        <Figure name="SSIM">{evaluation.ssim === null ? '–' : evaluation.ssim.toFixed(3)}</Figure>
        <Figure name={left > 0 ? `Views, ${count(left)} better not shown` : 'Views'}>{count(total)}</Figure>
        <Figure name="Training time">{duration(evaluation.seconds ?? run.trained_seconds ?? 0)}</Figure>
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
