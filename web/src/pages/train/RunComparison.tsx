// Runs side by side on one page, which a job makes.

import { useMutation } from '@tanstack/react-query';
import { ExternalLink } from 'lucide-react';
import { useState } from 'react';

import { ask } from '../../api/client';
import { artifactFile } from '../../api/previews';
import { Button } from '../../design/Button';
import { Meter } from '../../design/ProgressBar';
import { complain } from '../../design/Toasts';
import { useJobArtifacts } from '../../jobs/artifacts';
import { Controls } from '../../jobs/JobDialog';
import { doing } from '../../jobs/jobLabels';
import { atWork, useJob } from '../../state/store';

export function Compare({ project, runs }: { project: string; runs: string[] }) {
  const [asked, setAsked] = useState<string>();
  const start = useMutation({
    mutationFn: () => ask(project, { verb: 'compare', runs }),
    onSuccess: (job) => setAsked(job.id),
    onError: complain,
  });
  return (
    <div className="mt-4 -mb-1 flex flex-wrap items-center gap-3 border-t border-line pt-4 text-sm">
      {runs.length < 2 ? (
        <p className="text-soft">Tick two or more to see them side by side.</p>
      ) : (
        <Button disabled={start.isPending} onClick={() => start.mutate()}>
          Compare {runs.length} runs
        </Button>
      )}
      <Outcome id={asked} />
    </div>
  );
}

function Outcome({ id }: { id: string | undefined }) {
  const job = useJob(id);
  const page = useJobArtifacts(job).find((one) => one.name === 'compare.html');
  if (!job) return null;
  if (page) {
    return (
      <a
        href={artifactFile(page.id)}
        target="_blank"
        rel="noreferrer"
        className="inline-flex items-center gap-1.5 font-medium text-sun-text underline underline-offset-4"
      >
        Open the comparison
        <ExternalLink className="size-4" aria-hidden />
      </a>
    );
  }
  return (
    <div role="status" className="flex items-center gap-3">
      <span className={job.state === 'failed' ? 'text-bad' : 'text-soft'}>{doing(job)}</span>
      {atWork(job) && (
        <div className="w-28">
          <Meter value={job.total ? job.done / job.total : null} label="How far the comparison has come" />
        </div>
      )}
      <Controls job={job} />
    </div>
  );
}
