// The export form: content, format and options, and the progress of the last export.

import { useMutation } from '@tanstack/react-query';
import { FileOutput } from 'lucide-react';
import { useState } from 'react';

import { submitJob, type Job } from '../../api/client';
import { type RunSummary } from '../../api/previews';
import { useFormats, useRunPreview } from '../../state/queries';
import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { formErrorOf } from '../../forms/formErrors';
import { isActive, useJobs } from '../../state/store';
import { FileOptions } from './FileOptions';
import { VideoOptions } from './VideoOptions';
import { Forms, Wants } from './FormatCards';
import { ExportProgress } from './ExportProgress';
import type { FormatOffer } from './exportFormats';
import { chosen, NEW, request, type Wish } from './exportFormState';

const NONE: FormatOffer[] = [];

export function ExportForm({ project, run }: { project: string; run: RunSummary }) {
  const [wish, setWish] = useState<Wish>(NEW);
  const [made, setMade] = useState<string>();
  const begun = useJobs(project).find((job) => makes(job, run.id) && isActive(job));
  if (begun && !made) setMade(begun.id); // show the running export after a reload
  const offers = useFormats().data;
  const shown = useRunPreview(project, run.id);
  const withoutSplats = shown.data?.parts.length === 0;
  const choice = chosen(wish, offers ?? NONE, withoutSplats);
  const { file } = choice;
  const { asked, errors } = request(wish, choice, run.id);
  const start = useMutation({
    mutationFn: () => (asked ? submitJob(project, asked) : Promise.reject(new Error('The form has errors.'))),
    onSuccess: (job) => setMade(job.id),
  });
  const refused = start.error ? formErrorOf(start.error) : null;
  const unwrap = refused?.field ? { [refused.field]: refused.message, ...errors } : errors;
  const fields = file ? file.settings.map((one) => `settings.${one.name}`).concat(AXES) : FILM;
  const change = (part: Partial<Wish>) => {
    start.reset();
    setWish((old) => ({ ...old, ...part }));
  };
  const anew = { form: null, kind: null, purpose: null, entries: {} };
  if (!offers || shown.isPending) return <p className="p-8 text-center text-sm text-soft">Loading …</p>;
  return (
    <Panel title="Export a file">
      <form
        noValidate
        className="flex flex-col gap-6"
        onSubmit={(event) => {
          event.preventDefault();
          start.mutate();
        }}
      >
        <Wants
          targets={choice.targets}
          chosen={choice.target}
          onChoose={(target) => change({ ...anew, target })}
        />
        {file ? (
          <>
            <Forms
              forms={choice.forms}
              chosen={file.form.form}
              onChoose={(form) => change({ form, entries: {} })}
            />
            <FileOptions wish={wish} file={file} errors={unwrap} onChange={change} />
          </>
        ) : (
          <VideoOptions video={wish.video} errors={unwrap} onChange={(video) => change({ video })} />
        )}
        <div className="flex flex-wrap items-center gap-x-4 gap-y-3 border-t border-line pt-4">
          <Button
            type="submit"
            variant="primary"
            icon={<FileOutput className="size-4" />}
            disabled={start.isPending}
          >
            Export file
          </Button>
          {refused && !fields.includes(refused.field ?? '') && (
            <p role="alert" className="text-sm text-bad">
              {refused.message}
            </p>
          )}
        </div>
      </form>
      <ExportProgress project={project} run={run.id} id={made} />
    </Panel>
  );
}

/** Fields that show their own error. */
const AXES = ['frame', 'origin'];
const FILM = ['size', 'frames', 'fps'];

const makes = ({ asked }: Job, run: string): boolean =>
  (asked.verb === 'export' || asked.verb === 'render') && asked.run === run;
