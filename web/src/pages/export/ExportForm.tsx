// A file of a run: what, for whom, and what became of the last one asked for.

import { useMutation } from '@tanstack/react-query';
import { FileOutput } from 'lucide-react';
import { useState } from 'react';

import { ask, type Job } from '../../api/client';
import { type RunSummary } from '../../api/previews';
import { useFormats, useShownRun } from '../../state/queries';
import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { refusedBy } from '../../forms/formErrors';
import { atWork, useJobs } from '../../state/store';
import { FileOptions } from './FileOptions';
import { FilmOptions } from './VideoOptions';
import { Forms, Wants } from './FormatCards';
import { Making } from './ExportProgress';
import type { Offer } from './exportFormats';
import { chosen, NEW, request, type Wish } from './exportFormState';

const NONE: Offer[] = [];

export function Make({ project, run }: { project: string; run: RunSummary }) {
  const [wish, setWish] = useState<Wish>(NEW);
  const [made, setMade] = useState<string>();
  const begun = useJobs(project).find((job) => makes(job, run.id) && atWork(job));
  if (begun && !made) setMade(begun.id); // whoever comes back sees what was asked for before
  const offers = useFormats().data;
  const shown = useShownRun(project, run.id);
  const flat = shown.data?.parts.length === 0;
  const choice = chosen(wish, offers ?? NONE, flat);
  const { file } = choice;
  const { asked, faults } = request(wish, choice, run.id);
  const start = useMutation({
    mutationFn: () =>
      asked ? ask(project, asked) : Promise.reject(new Error('Something in the form is wrong.')),
    onSuccess: (job) => setMade(job.id),
  });
  const refused = start.error ? refusedBy(start.error) : null;
  const told = refused?.field ? { [refused.field]: refused.why, ...faults } : faults;
  const fields = file ? file.settings.map((one) => `settings.${one.name}`).concat(AXES) : FILM;
  const change = (part: Partial<Wish>) => {
    start.reset();
    setWish((old) => ({ ...old, ...part }));
  };
  const anew = { form: null, kind: null, purpose: null, entries: {} };
  if (!offers || shown.isPending) return <p className="p-8 text-center text-sm text-soft">One moment …</p>;
  return (
    <Panel title="Make a file">
      <form
        noValidate
        className="flex flex-col gap-6"
        onSubmit={(event) => {
          event.preventDefault();
          start.mutate();
        }}
      >
        <Wants wants={choice.wants} chosen={choice.want} onChoose={(want) => change({ ...anew, want })} />
        {file ? (
          <>
            <Forms
              forms={choice.forms}
              chosen={file.form.form}
              onChoose={(form) => change({ form, entries: {} })}
            />
            <FileOptions wish={wish} file={file} faults={told} onChange={change} />
          </>
        ) : (
          <FilmOptions film={wish.film} faults={told} onChange={(film) => change({ film })} />
        )}
        <div className="flex flex-wrap items-center gap-x-4 gap-y-3 border-t border-line pt-4">
          <Button
            type="submit"
            look="primary"
            icon={<FileOutput className="size-4" />}
            disabled={start.isPending}
          >
            Make file
          </Button>
          {refused && !fields.includes(refused.field ?? '') && (
            <p role="alert" className="text-sm text-bad">
              {refused.why}
            </p>
          )}
        </div>
      </form>
      <Making project={project} run={run.id} id={made} />
    </Panel>
  );
}

/** Fields beside which their refusal stands. */
const AXES = ['frame', 'origin'];
const FILM = ['size', 'frames', 'fps'];

const makes = ({ asked }: Job, run: string): boolean =>
  (asked.verb === 'export' || asked.verb === 'render') && asked.run === run;
