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
import { FormatCards, TargetCards } from './FormatCards';
import { ExportProgress } from './ExportProgress';
import type { FormatOffer } from './exportFormats';
import {
  buildExportRequest,
  INITIAL_EXPORT,
  resolveSelection,
  type ExportFormState,
} from './exportFormState';

const NO_FORMATS: FormatOffer[] = [];

export function ExportForm({ project, run }: { project: string; run: RunSummary }) {
  const [state, setState] = useState<ExportFormState>(INITIAL_EXPORT);
  const [exportJob, setExportJob] = useState<string>();
  const activeJob = useJobs(project).find((job) => isExportOf(job, run.id) && isActive(job));
  if (activeJob && !exportJob) setExportJob(activeJob.id); // show the running export after a reload
  const offers = useFormats().data;
  const preview = useRunPreview(project, run.id);
  const withoutSplats = preview.data?.parts.length === 0;
  const selection = resolveSelection(state, offers ?? NO_FORMATS, withoutSplats);
  const { file } = selection;
  const { request, errors } = buildExportRequest(state, selection, run.id);
  const start = useMutation({
    mutationFn: () =>
      request ? submitJob(project, request) : Promise.reject(new Error('The form has errors.')),
    onSuccess: (job) => setExportJob(job.id),
  });
  const formError = start.error ? formErrorOf(start.error) : null;
  const fieldErrors = formError?.field ? { [formError.field]: formError.message, ...errors } : errors;
  const fields = file
    ? file.settings.map((setting) => `settings.${setting.name}`).concat(AXES_FIELDS)
    : VIDEO_FIELDS;
  const change = (part: Partial<ExportFormState>) => {
    start.reset();
    setState((previous) => ({ ...previous, ...part }));
  };
  const reset = { form: null, kind: null, purpose: null, entries: {} };
  if (!offers || preview.isPending) return <p className="p-8 text-center text-sm text-soft">Loading …</p>;
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
        <TargetCards
          targets={selection.targets}
          selected={selection.target}
          onChoose={(target) => change({ ...reset, target })}
        />
        {file ? (
          <>
            <FormatCards
              forms={selection.forms}
              selected={file.form.form}
              onChoose={(form) => change({ form, entries: {} })}
            />
            <FileOptions state={state} file={file} errors={fieldErrors} onChange={change} />
          </>
        ) : (
          <VideoOptions video={state.video} errors={fieldErrors} onChange={(video) => change({ video })} />
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
          {formError && !fields.includes(formError.field ?? '') && (
            <p role="alert" className="text-sm text-bad">
              {formError.message}
            </p>
          )}
        </div>
      </form>
      <ExportProgress project={project} run={run.id} id={exportJob} />
    </Panel>
  );
}

/** Fields that show their own error. */
const AXES_FIELDS = ['frame', 'origin'];
const VIDEO_FIELDS = ['size', 'frames', 'fps'];

const isExportOf = ({ asked }: Job, run: string): boolean =>
  (asked.verb === 'export' || asked.verb === 'render') && asked.run === run;
