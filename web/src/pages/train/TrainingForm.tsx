// The form that starts a training: a preset, and all settings on request.

import { useMutation } from '@tanstack/react-query';
import { SlidersHorizontal, Sparkles } from 'lucide-react';
import { useState } from 'react';

import { useMethods } from '../../state/queries';
import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { formErrorOf } from '../../forms/formErrors';
import { budgetOf, presetOf } from './presets';
import { PresetCards } from './PresetCards';
import { TrainingSettings } from './TrainingSettings';
import { startTraining } from './startTraining';
import { buildTrainingRequest, INITIAL_TRAINING, type TrainingFormState } from './trainingFormState';

export function TrainingForm({
  project,
  needs,
  onStarted,
  onClose,
}: {
  project: string;
  needs: string[]; // jobs to wait for
  onStarted: (run: string) => void;
  onClose?: (() => void) | undefined;
}) {
  const [state, setState] = useState<TrainingFormState>(INITIAL_TRAINING);
  const [expanded, expand] = useState(false);
  const methods = useMethods().data ?? [];
  const start = useMutation({
    mutationFn: () => startTraining(project, buildTrainingRequest(state, methods).request, needs),
    onSuccess: (job) => onStarted(job.id),
    onError: (error) => expand((open) => open || formErrorOf(error).field !== null),
  });
  const { errors } = buildTrainingRequest(state, methods);
  const formError = start.error ? formErrorOf(start.error) : null;
  const fieldErrors = formError?.field ? { [formError.field]: formError.message, ...errors } : errors;
  const change = (part: Partial<TrainingFormState>) => {
    start.reset();
    setState((previous) => ({ ...previous, ...part }));
  };
  return (
    <Panel
      title="New training"
      aside={
        onClose && (
          <Button small variant="quiet" onClick={onClose}>
            Cancel
          </Button>
        )
      }
    >
      <form
        noValidate
        className="flex flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          if (Object.keys(errors).length) expand(true);
          else start.mutate();
        }}
      >
        <PresetCards
          selected={presetOf(state.budget)}
          onChoose={(preset) => change({ budget: budgetOf(preset) })}
        />
        <div>
          <Button
            small
            variant="quiet"
            icon={<SlidersHorizontal className="size-4" />}
            aria-expanded={expanded}
            onClick={() => expand(!expanded)}
          >
            Settings
          </Button>
          {expanded && (
            <TrainingSettings state={state} methods={methods} errors={fieldErrors} onChange={change} />
          )}
        </div>
        <div className="flex flex-wrap items-center gap-x-4 gap-y-2">
          <Button
            type="submit"
            variant="primary"
            disabled={start.isPending}
            icon={<Sparkles className="size-4" />}
          >
            Start training
          </Button>
          {formError && !hasFieldError(fieldErrors, formError.field) && (
            <p role="alert" className="text-sm text-bad">
              {formError.message}
            </p>
          )}
          {needs.length > 0 && <p className="text-sm text-soft">Training starts when the poses are ready.</p>}
        </div>
      </form>
    </Panel>
  );
}

/** Fields that show their own error. */
const FIELDS = /^(seconds|steps|downscale|holdout|seed|method|settings\..+)$/;
const hasFieldError = (fieldErrors: Record<string, string>, field: string | null): boolean =>
  field !== null && FIELDS.test(field) && fieldErrors[field] !== undefined;
