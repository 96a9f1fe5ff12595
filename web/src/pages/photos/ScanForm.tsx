// Starts a scan: from these photos to a scene.

import { Sparkles } from 'lucide-react';
import { useState } from 'react';
import { useLocation } from 'wouter';

import type { Job } from '../../api/client';
import { Button } from '../../design/Button';
import { Card } from '../../design/Card';
import { showError } from '../../design/Toasts';
import { type Budget, BUDGETS, havePoses, startScan } from '../../jobs/startScan';
import { formatDuration } from '../../lib/format';
import { isActive } from '../../state/store';

const NAMES: Record<Budget, string> = { quick: 'Quick', good: 'Good', best: 'Best' };

export function ScanForm({ project, names, jobs }: { project: string; names: string[]; jobs: Job[] }) {
  const [budget, choose] = useState<Budget>('good');
  const [busy, setBusy] = useState(false);
  const [, go] = useLocation();
  if (jobs.some((job) => isActive(job) || (job.asked.verb === 'train' && job.state === 'succeeded')))
    return null;
  const failed = jobs.find((job) => job.state === 'failed');
  const begin = () => {
    if (busy) return;
    setBusy(true);
    startScan(project, names, budget)
      .then(() => go(`/projects/${project}/train`))
      .catch(showError)
      .finally(() => setBusy(false));
  };
  return (
    <Card className="flex flex-wrap items-center justify-between gap-4 p-4">
      <div className="max-w-md text-sm">
        <p className="font-medium">Ready to reconstruct</p>
        <p className="text-soft">
          {havePoses(names)
            ? 'The photos have camera poses. Training starts at once.'
            : 'We estimate camera poses, then train. You can watch.'}
        </p>
        {failed && <p className="mt-1 text-bad">The last attempt failed: {failed.error}</p>}
      </div>
      <div className="flex flex-wrap items-center gap-3">
        <fieldset className="flex rounded-lg border border-line p-0.5">
          <legend className="sr-only">Training time</legend>
          {(Object.keys(BUDGETS) as Budget[]).map((one) => (
            <label
              key={one}
              className="cursor-pointer rounded-md px-3 py-1.5 text-sm text-soft has-checked:bg-raised has-checked:font-medium has-checked:text-ink has-focus-visible:outline-2"
            >
              <input
                type="radio"
                name="budget"
                className="sr-only"
                checked={budget === one}
                onChange={() => choose(one)}
              />
              {NAMES[one]} <span className="text-xs text-soft">{formatDuration(BUDGETS[one])}</span>
            </label>
          ))}
        </fieldset>
        <Button variant="primary" aria-disabled={busy} icon={<Sparkles className="size-4" />} onClick={begin}>
          Reconstruct scene
        </Button>
      </div>
    </Card>
  );
}
