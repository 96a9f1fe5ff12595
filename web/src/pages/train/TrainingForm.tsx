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
import { NEW, request, type Wish } from './trainingFormState';

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
  const [wish, setWish] = useState<Wish>(NEW);
  const [expanded, expand] = useState(false);
  const methods = useMethods().data ?? [];
  const start = useMutation({
    mutationFn: () => startTraining(project, request(wish, methods).asked, needs),
    onSuccess: (job) => onStarted(job.id),
    onError: (error) => expand((open) => open || formErrorOf(error).field !== null),
  });
  const { errors } = request(wish, methods);
  const refused = start.error ? formErrorOf(start.error) : null;
  const shown = refused?.field ? { [refused.field]: refused.message, ...errors } : errors;
  const change = (part: Partial<Wish>) => {
    start.reset();
    setWish((old) => ({ ...old, ...part }));
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
        <PresetCards chosen={presetOf(wish.budget)} onChoose={(one) => change({ budget: budgetOf(one) })} />
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
          {expanded && <TrainingSettings wish={wish} methods={methods} errors={shown} onChange={change} />}
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
          {refused && !faultless(shown, refused.field) && (
            <p role="alert" className="text-sm text-bad">
              {refused.message}
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
const faultless = (shown: Record<string, string>, field: string | null): boolean =>
  field !== null && FIELDS.test(field) && shown[field] !== undefined;
