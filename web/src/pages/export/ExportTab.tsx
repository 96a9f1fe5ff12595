// A scene for other programs, and films of it.

import { NoRuns } from '../../runs/NoRuns';
import { RunSelect } from '../../runs/RunSelect';
import { useChosenRun } from '../../runs/useChosenRun';
import { History } from './ExportHistory';
import { Make } from './ExportForm';

export function ExportTab({ project }: { project: string }) {
  const { runs, run, choose, isPending } = useChosenRun(project);
  if (isPending) return <p className="p-8 text-center text-sm text-soft">One moment …</p>;
  if (!run) return <NoRuns project={project} />;
  return (
    <div className="mx-auto flex w-full max-w-6xl flex-col gap-6 p-4 sm:p-6">
      <RunSelect runs={runs} run={run} onChoose={choose} />
      <Make key={run.id} project={project} run={run} />
      <History project={project} />
    </div>
  );
}
