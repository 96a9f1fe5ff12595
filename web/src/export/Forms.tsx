import { Box, Film, Package } from 'lucide-react';
import type { ReactNode } from 'react';

import { FILM, formName, formWords } from './wish';

const ICONS: Record<string, ReactNode> = { ply: <Box />, spz: <Package />, [FILM]: <Film /> };

/** What to make: a card for each. */
export function Forms({
  forms,
  chosen,
  onChoose,
}: {
  forms: string[];
  chosen: string;
  onChoose: (form: string) => void;
}) {
  return (
    <fieldset className="grid gap-3 sm:grid-cols-2 lg:grid-cols-3">
      <legend className="sr-only">What to make</legend>
      {forms.map((form) => (
        <label
          key={form}
          className="flex cursor-pointer gap-3 rounded-card border border-line p-4 transition hover:bg-raised has-checked:border-sun has-checked:bg-raised has-checked:ring-1 has-checked:ring-sun has-focus-visible:outline-2 has-focus-visible:outline-offset-2 has-focus-visible:outline-sun-text"
        >
          <span className="text-soft [&_svg]:size-5" aria-hidden>
            {ICONS[form] ?? <Box />}
          </span>
          <span className="flex-1">
            <span className="text-sm font-semibold">{formName(form)}</span>
            <span id={`form-${form}`} className="mt-1 block text-sm text-soft">
              {formWords(form)}
            </span>
          </span>
          <input
            type="radio"
            name="form"
            className="size-4 accent-sun"
            aria-label={formName(form)}
            aria-describedby={`form-${form}`}
            checked={form === chosen}
            onChange={() => onChoose(form)}
          />
        </label>
      ))}
    </fieldset>
  );
}
