import { Clock } from 'lucide-react';

import { type Preset, PRESETS } from './presets';

/** How long: three cards of which one may be chosen. */
export function Presets({
  chosen,
  onChoose,
}: {
  chosen: Preset | undefined;
  onChoose: (one: Preset) => void;
}) {
  return (
    <fieldset className="grid gap-3 sm:grid-cols-3">
      <legend className="sr-only">How good</legend>
      {PRESETS.map((one) => (
        <label
          key={one.id}
          className="flex cursor-pointer flex-col gap-1.5 rounded-card border border-line p-4 transition hover:bg-raised has-checked:border-sun has-checked:bg-raised has-checked:ring-1 has-checked:ring-sun has-focus-visible:outline-2 has-focus-visible:outline-offset-2 has-focus-visible:outline-sun-text"
        >
          <span className="flex items-center justify-between gap-2">
            <span className="text-base font-semibold">{one.name}</span>
            <input
              type="radio"
              name="preset"
              className="size-4 accent-sun"
              aria-label={one.name}
              aria-describedby={`preset-${one.id}`}
              checked={one === chosen}
              onChange={() => onChoose(one)}
            />
          </span>
          <span id={`preset-${one.id}`} className="flex flex-col gap-1.5 text-sm">
            <span className="flex items-center gap-1.5 text-sun-text">
              <Clock className="size-3.5" aria-hidden />
              {one.time}
            </span>
            <span className="text-soft">{one.expect}</span>
          </span>
        </label>
      ))}
    </fieldset>
  );
}
