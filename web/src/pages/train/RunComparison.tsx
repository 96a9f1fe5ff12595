// Submits a comparison of runs and links to its page.

import { useMutation } from '@tanstack/react-query';
import { ExternalLink } from 'lucide-react';
import { useState } from 'react';

import { submitJob } from '../../api/client';
import { artifactFile } from '../../api/previews';
import { Button } from '../../design/Button';
import { ProgressBar } from '../../design/ProgressBar';
import { showError } from '../../design/Toasts';
import { useJobArtifacts } from '../../jobs/artifacts';
import { JobControls } from '../../jobs/JobDialog';
import { statusText } from '../../jobs/jobLabels';
import { isActive, useJob } from '../../state/store';

export function RunComparison({ project, runs }: { project: string; runs: string[] }) {
  const [asked, setAsked] = useState<string>();
  const start = useMutation({
    mutationFn: () => submitJob(project, { verb: 'compare', runs }),
    onSuccess: (job) => setAsked(job.id),
    onError: showError,
  });
  return (
    <div className="mt-4 -mb-1 flex flex-wrap items-center gap-3 border-t border-line pt-4 text-sm">
      {runs.length < 2 ? (
        <p className="text-soft">Select two or more runs to compare.</p>
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
      <span className={job.state === 'failed' ? 'text-bad' : 'text-soft'}>{statusText(job)}</span>
      {isActive(job) && (
        <div className="w-28">
          <ProgressBar value={job.total ? job.done / job.total : null} label="Comparison progress" />
        </div>
      )}
      <JobControls job={job} />
    </div>
  );
}
