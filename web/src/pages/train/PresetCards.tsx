import { Clock } from 'lucide-react';

import { OptionCard } from '../../forms/OptionCard';
import { type Preset, PRESETS } from './presets';

/** A choice of training time as three cards. */
export function PresetCards({
  selected,
  onChoose,
}: {
  selected: Preset | undefined;
  onChoose: (preset: Preset) => void;
}) {
  return (
    <fieldset className="grid gap-3 sm:grid-cols-3">
      <legend className="sr-only">Quality</legend>
      {PRESETS.map((preset) => (
        <OptionCard
          key={preset.id}
          group="preset"
          name={preset.name}
          checked={preset === selected}
          onChoose={() => onChoose(preset)}
        >
          <span className="mb-1 flex items-center gap-1.5 text-sun-text">
            <Clock className="size-3.5 shrink-0" aria-hidden />
            {preset.time}
          </span>
          {preset.expect}
        </OptionCard>
      ))}
    </fieldset>
  );
}
