// How a training begins: how good it shall be, and, for those who want to, everything else.

import { useMutation } from '@tanstack/react-query';
import { SlidersHorizontal, Sparkles } from 'lucide-react';
import { useState } from 'react';

import { useMethods } from '../../state/queries';
import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { refusedBy } from '../../forms/formErrors';
import { budgetOf, presetOf } from './presets';
import { Presets } from './PresetCards';
import { SettingsForm } from './TrainingSettings';
import { startTraining } from './startTraining';
import { NEW, request, type Wish } from './trainingFormState';

export function StartPanel({
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
    onError: (error) => expand((open) => open || refusedBy(error).field !== null),
  });
  const { faults } = request(wish, methods);
  const refused = start.error ? refusedBy(start.error) : null;
  const shown = refused?.field ? { [refused.field]: refused.why, ...faults } : faults;
  const change = (part: Partial<Wish>) => {
    start.reset();
    setWish((old) => ({ ...old, ...part }));
  };
  return (
    <Panel
      title="How good should it be?"
      aside={
        onClose && (
          <Button small look="quiet" onClick={onClose}>
            Not now
          </Button>
        )
      }
    >
      <form
        noValidate
        className="flex flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          if (Object.keys(faults).length) expand(true);
          else start.mutate();
        }}
      >
        <Presets chosen={presetOf(wish.budget)} onChoose={(one) => change({ budget: budgetOf(one) })} />
        <div>
          <Button
            small
            look="quiet"
            icon={<SlidersHorizontal className="size-4" />}
            aria-expanded={expanded}
            onClick={() => expand(!expanded)}
          >
            Settings
          </Button>
          {expanded && <SettingsForm wish={wish} methods={methods} faults={shown} onChange={change} />}
        </div>
        <div className="flex flex-wrap items-center gap-x-4 gap-y-2">
          <Button
            type="submit"
            look="primary"
            disabled={start.isPending}
            icon={<Sparkles className="size-4" />}
          >
            Start training
          </Button>
          {refused && !faultless(shown, refused.field) && (
            <p role="alert" className="text-sm text-bad">
              {refused.why}
            </p>
          )}
          {needs.length > 0 && <p className="text-sm text-soft">It begins when the cameras are found.</p>}
        </div>
      </form>
    </Panel>
  );
}

/** Whether the refusal stands at a field of the form already. */
const FIELDS = /^(seconds|steps|downscale|holdout|seed|method|settings\..+)$/;
const faultless = (shown: Record<string, string>, field: string | null): boolean =>
  field !== null && FIELDS.test(field) && shown[field] !== undefined;
