// A radio button as a card with a name and a description.

import { type ReactNode, useId } from 'react';

export function OptionCard({
  group,
  name,
  icon,
  mark,
  checked,
  onChoose,
  children,
}: {
  group: string; // the radio group
  name: string;
  icon?: ReactNode;
  mark?: string | undefined; // a note next to the name, such as Recommended
  checked: boolean;
  onChoose: () => void;
  children?: ReactNode;
}) {
  const id = useId();
  return (
    <label className="flex cursor-pointer gap-3 rounded-card border border-line p-4 transition hover:bg-raised has-checked:border-sun has-checked:bg-raised has-checked:ring-1 has-checked:ring-sun has-focus-visible:outline-2 has-focus-visible:outline-offset-2 has-focus-visible:outline-sun-text">
      {icon && (
        <span className="text-soft [&_svg]:size-5" aria-hidden>
          {icon}
        </span>
      )}
      <span className="flex min-w-0 flex-1 flex-col gap-1">
        <span className="flex flex-wrap items-baseline gap-x-2">
          <span className="text-sm font-semibold">{name}</span>
          {mark && <span className="text-xs text-sun-text">{mark}</span>}
        </span>
        <span id={id} className="text-sm text-soft">
          {children}
        </span>
      </span>
      <input
        type="radio"
        name={group}
        className="size-4 shrink-0 accent-sun"
        aria-label={mark ? `${name}, ${mark.toLowerCase()}` : name}
        aria-describedby={id}
        checked={checked}
        onChange={onChoose}
      />
    </label>
  );
}
