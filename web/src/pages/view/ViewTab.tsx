// The View tab: the run selection and the viewer.

import { Box } from 'lucide-react';
import { Link, useSearchParams } from 'wouter';

import { errorMessage } from '../../lib/errors';
import { type RunSummary } from '../../api/previews';
import { useRuns, useRunPreview } from '../../state/queries';
import { Empty } from '../../design/Card';
import { formatAge } from '../../lib/format';
import { isActive, useJob } from '../../state/store';
import { RunViewer } from './RunViewer';

export function ViewTab({ project }: { project: string }) {
  const runs = useRuns(project);
  const [search, setSearch] = useSearchParams();
  const job = useJob(search.get('run') ?? undefined);
  if (runs.isPending) return <Waiting />;
  if (runs.isError) return <Empty title="Cannot list the runs">{errorMessage(runs.error)}</Empty>;
  const newest = [...(runs.data ?? [])].sort((a, b) => b.created - a.created);
  const requestedRun = newest.find((summary) => summary.id === search.get('run'));
  if (!requestedRun && job?.project === project && isActive(job)) return <NoCheckpoint />;
  const run = requestedRun ?? newest[0];
  if (!run) return <Nothing project={project} />;
  const choose = (id: string) => setSearch({ run: id }, { replace: true });
  return (
    <>
      {newest.length > 1 && <Runs runs={newest} run={run.id} onChoose={choose} />}
      <Scene key={run.id} project={project} run={run} />
    </>
  );
}

function Scene({ project, run }: { project: string; run: RunSummary }) {
  const preview = useRunPreview(project, run.id);
  if (preview.isPending) return <Waiting />;
  if (preview.isError) return <Empty title="Cannot show this run">{errorMessage(preview.error)}</Empty>;
  if (!preview.data) return <NoCheckpoint />;
  return (
    <RunViewer
      project={project}
      run={run.id}
      preview={preview.data}
      antialiased={run.settings.antialiased === true}
    />
  );
}

function Runs({ runs, run, onChoose }: { runs: RunSummary[]; run: string; onChoose: (id: string) => void }) {
  return (
    <label className="flex items-center gap-2 border-b border-line bg-surface px-4 py-2 text-xs text-soft sm:px-6">
      Run
      <select
        value={run}
        onChange={(event) => onChoose(event.target.value)}
        className="h-8 min-w-0 rounded-lg border border-line bg-ground px-2 text-sm text-ink"
      >
        {runs.map((summary) => (
          <option key={summary.id} value={summary.id}>
            {summary.method}, {formatAge(summary.created)}
            {summary.psnr === null ? '' : `, ${summary.psnr.toFixed(1)} dB`}
            {summary.finished ? '' : ', not finished'}
          </option>
        ))}
      </select>
    </label>
  );
}

const NoCheckpoint = () => (
  <Empty icon={<Box />} title="No checkpoint yet">
    The scene appears with the first checkpoint and sharpens during training.
  </Empty>
);

const Waiting = () => <p className="p-8 text-center text-sm text-soft">Loading …</p>;

function Nothing({ project }: { project: string }) {
  return (
    <Empty
      icon={<Box />}
      title="No scene yet"
      action={
        <Link
          href={`/projects/${project}/train`}
          className="inline-flex h-10 items-center rounded-lg bg-sun px-4 text-sm font-medium text-sun-ink shadow-sm"
        >
          Train
        </Link>
      }
    >
      Train a run first. One minute gives a first result.
    </Empty>
  );
}
