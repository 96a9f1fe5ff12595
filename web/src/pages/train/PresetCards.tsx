import { Clock } from 'lucide-react';

import { OptionCard } from '../../forms/OptionCard';
import { type Preset, PRESETS } from './presets';

/** A choice of training time as three cards. */
export function PresetCards({
  chosen,
  onChoose,
}: {
  chosen: Preset | undefined;
  onChoose: (one: Preset) => void;
}) {
  return (
    <fieldset className="grid gap-3 sm:grid-cols-3">
      <legend className="sr-only">Quality</legend>
      {PRESETS.map((one) => (
        <OptionCard
          key={one.id}
          group="preset"
          name={one.name}
          checked={one === chosen}
          onChoose={() => onChoose(one)}
        >
          <span className="mb-1 flex items-center gap-1.5 text-sun-text">
            <Clock className="size-3.5 shrink-0" aria-hidden />
            {one.time}
          </span>
          {one.expect}
        </OptionCard>
      ))}
    </fieldset>
  );
}
