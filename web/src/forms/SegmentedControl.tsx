// Radio buttons side by side, in the style of a switch.

import { useId } from 'react';

export function SegmentedControl<T extends string>({
  name,
  options,
  value,
  onChange,
}: {
  name: string;
  options: { value: T; label: string; off?: boolean }[];
  value: T;
  onChange: (value: T) => void;
}) {
  const id = useId();
  return (
    <fieldset>
      <legend className="mb-1.5 text-xs text-soft">{name}</legend>
      <div className="flex gap-1 rounded-lg bg-raised p-1">
        {options.map((one) => (
          <label
            key={one.value}
            className="flex h-8 flex-1 cursor-pointer items-center justify-center rounded-md px-2 text-sm text-soft hover:text-ink has-checked:bg-surface has-checked:font-medium has-checked:text-ink has-checked:shadow-sm has-disabled:cursor-not-allowed has-disabled:opacity-50 has-focus-visible:outline-2 has-focus-visible:outline-sun-text"
          >
            <input
              type="radio"
              name={id}
              className="sr-only"
              checked={one.value === value}
              disabled={one.off}
              onChange={() => onChange(one.value)}
            />
            {one.label}
          </label>
        ))}
      </div>
    </fieldset>
  );
}
