// The runs of a project, with actions to view, continue and compare.

import { Plus } from 'lucide-react';
import { type ReactNode, useState } from 'react';

import type { RunSummary } from '../../api/previews';
import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { formatAge, formatCount, formatDecibels, formatDuration } from '../../lib/format';
import { RunComparison } from './RunComparison';
import { ContinueDialog } from './ContinueDialog';
import { methodName } from '../../runs/methodLabels';

interface Props {
  project: string;
  runs: RunSummary[];
  chosen: string | undefined;
  busy: Set<string>; // runs in training
  onChoose: (run: string) => void;
  onNew: () => void;
}

export function Runs({ project, runs, chosen, busy, onChoose, onNew }: Props) {
  const [ticked, tick] = useState<string[]>([]);
  const [goingOn, goOn] = useState<RunSummary | null>(null);
  const best = runs.length > 1 ? bestOf(runs) : undefined;
  const toggle = (id: string) =>
    tick((old) => (old.includes(id) ? old.filter((it) => it !== id) : [...old, id]));
  return (
    <Panel
      title="Runs"
      aside={
        <Button small icon={<Plus className="size-4" />} onClick={onNew}>
          New training
        </Button>
      }
    >
      <ul className="-m-4 divide-y divide-line">
        {runs.map((run) => (
          <li
            key={run.id}
            aria-current={run.id === chosen ? 'true' : undefined}
            className="flex items-center gap-3 px-4 py-3 aria-[current]:bg-raised"
          >
            {runs.length > 1 && (
              <input
                type="checkbox"
                className="size-5 shrink-0 accent-sun"
                aria-label={`Compare ${nameOf(run)}`}
                checked={ticked.includes(run.id)}
                onChange={() => toggle(run.id)}
              />
            )}
            <Row run={run} busy={busy.has(run.id)} best={run === best} onChoose={() => onChoose(run.id)} />
            {!busy.has(run.id) && (
              <Button small variant="quiet" aria-label={`Continue ${nameOf(run)}`} onClick={() => goOn(run)}>
                Continue
              </Button>
            )}
          </li>
        ))}
      </ul>
      {runs.length > 1 && (
        <RunComparison project={project} runs={ticked.filter((id) => runs.some((run) => run.id === id))} />
      )}
      <ContinueDialog
        project={project}
        run={goingOn}
        onClose={() => goOn(null)}
        onStarted={(run) => {
          goOn(null);
          onChoose(run);
        }}
      />
    </Panel>
  );
}

const nameOf = (run: RunSummary): string => `${methodName(run.method)}, ${formatAge(run.created)}`;

const bestOf = (runs: RunSummary[]): RunSummary | undefined =>
  runs
    .filter((run) => run.psnr !== null)
    .sort((a, b) => (b.psnr ?? 0) - (a.psnr ?? 0))
    .at(0);

function Row(props: { run: RunSummary; busy: boolean; best: boolean; onChoose: () => void }) {
  const { run, busy, best, onChoose } = props;
  const facts = [
    run.trained_seconds ? formatDuration(run.trained_seconds) : null,
    run.step ? `${formatCount(run.step)} steps` : null,
    run.count === null ? null : `${formatCount(run.count)} gaussians`,
  ].filter((fact) => fact !== null);
  return (
    <button
      type="button"
      onClick={onChoose}
      className="flex min-w-0 flex-1 flex-wrap items-center justify-between gap-x-6 gap-y-1 text-left"
    >
      <span className="min-w-0">
        <span className="flex flex-wrap items-center gap-2 text-sm font-medium">
          {methodName(run.method)}
          {busy && <Tag>Training</Tag>}
          {best && <Tag>Best</Tag>}
          <span className="font-normal text-soft">{formatAge(run.created)}</span>
        </span>
        <span className="block text-xs text-soft tabular-nums">{facts.join(' · ')}</span>
      </span>
      <span className="flex gap-4 text-sm tabular-nums">
        <span className="font-semibold">{formatDecibels(run.psnr)}</span>
        {run.ssim !== null && <span className="text-soft">SSIM {run.ssim.toFixed(3)}</span>}
      </span>
    </button>
  );
}

function Tag({ children }: { children: ReactNode }) {
  return (
    <span className="rounded-full border border-line bg-surface px-2 text-2xs font-medium text-sun-text">
      {children}
    </span>
  );
}
