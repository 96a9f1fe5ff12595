// A file of a run: which, how, and what became of the last one asked for.

import { useMutation } from '@tanstack/react-query';
import { Download, FileOutput } from 'lucide-react';
import { useState } from 'react';

import { ask } from '../api/client';
import { artifactFile, type RunSummary, useFormats, useShownRun } from '../api/shown';
import { Button } from '../design/Button';
import { Panel } from '../design/Card';
import { Meter } from '../design/Meter';
import { bytes, duration } from '../lib/format';
import { Controls } from '../project/JobDialog';
import { doing } from '../project/words';
import { atWork, useJob } from '../state/store';
import { refusedBy } from '../train/start';
import { useJobArtifacts } from './artifacts';
import { Forms } from './Forms';
import { Options } from './Options';
import { FILM, NEW, request, type Wish } from './wish';

export function Make({ project, run }: { project: string; run: RunSummary }) {
  const [wish, setWish] = useState<Wish>(NEW);
  const [made, setMade] = useState<string>();
  const formats = (useFormats().data ?? []).map((one) => one.form);
  const flat = useShownRun(project, run.id).data?.parts.length === 0;
  const asked = request(wish, run.id);
  const start = useMutation({
    mutationFn: () =>
      asked ? ask(project, asked) : Promise.reject(new Error('Something in the form is wrong.')),
    onSuccess: (job) => setMade(job.id),
  });
  const impossible = flat && wish.form !== FILM;
  const change = (part: Partial<Wish>) => {
    start.reset();
    setWish((old) => ({ ...old, ...part }));
  };
  return (
    <Panel title="Make a file">
      <form
        noValidate
        className="flex flex-col gap-5"
        onSubmit={(event) => {
          event.preventDefault();
          start.mutate();
        }}
      >
        <Forms forms={[...formats, FILM]} chosen={wish.form} onChoose={(form) => change({ form })} />
        <Options wish={wish} onChange={change} />
        <div className="flex flex-wrap items-center gap-x-4 gap-y-3">
          <Button
            type="submit"
            look="primary"
            icon={<FileOutput className="size-4" />}
            disabled={!asked || impossible || start.isPending}
          >
            Make file
          </Button>
          {impossible && (
            <p className="text-sm text-soft">This run has no gaussians to write. A film of it can be made.</p>
          )}
          {start.error && (
            <p role="alert" className="text-sm text-bad">
              {refusedBy(start.error).why}
            </p>
          )}
          {!start.error && <Making id={made} />}
        </div>
      </form>
    </Panel>
  );
}

function Making({ id }: { id: string | undefined }) {
  const job = useJob(id);
  const file = useJobArtifacts(job)[0];
  if (!job) return null;
  if (file) {
    return (
      <a
        href={artifactFile(file.id)}
        download={file.name}
        className="inline-flex h-10 items-center gap-2 rounded-lg border border-line px-4 text-sm font-medium hover:bg-raised"
      >
        <Download className="size-4" aria-hidden />
        Download {file.name} ({bytes(file.bytes)})
      </a>
    );
  }
  return (
    <div role="status" className="flex flex-1 flex-wrap items-center gap-3 text-sm">
      <span className={job.state === 'failed' ? 'text-bad' : 'text-soft'}>
        {doing(job)}
        {job.state === 'running' && job.seconds_left !== null && `, ${duration(job.seconds_left)} left`}
      </span>
      {atWork(job) && (
        <div className="w-32">
          <Meter value={job.total ? job.done / job.total : null} label={doing(job)} />
        </div>
      )}
      <Controls job={job} />
    </div>
  );
}
