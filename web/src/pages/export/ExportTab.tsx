// The Export tab: files for other programs, and videos.

import { NoRuns } from '../../runs/NoRuns';
import { RunSelect } from '../../runs/RunSelect';
import { useChosenRun } from '../../runs/useChosenRun';
import { ExportHistory } from './ExportHistory';
import { ExportForm } from './ExportForm';

export function ExportTab({ project }: { project: string }) {
  const { runs, run, choose, isPending } = useChosenRun(project);
  if (isPending) return <p className="p-8 text-center text-sm text-soft">Loading …</p>;
  if (!run) return <NoRuns project={project} />;
  return (
    <div className="mx-auto flex w-full max-w-6xl flex-col gap-6 p-4 sm:p-6">
      <RunSelect runs={runs} run={run} onChoose={choose} />
      <ExportForm key={run.id} project={project} run={run} />
      <ExportHistory project={project} />
    </div>
  );
}
