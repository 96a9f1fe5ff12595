// A form field: label, help text and error.

import { type ReactNode, useId } from 'react';

export const INPUT =
  'h-10 w-full min-w-0 rounded-lg border border-line bg-surface px-3 text-sm text-ink tabular-nums aria-[invalid=true]:border-bad disabled:opacity-60';

/** Attributes that link a control to its label, help text and error for screen readers. */
export interface Wiring {
  id: string;
  'aria-describedby': string | undefined;
  'aria-invalid': boolean | undefined;
}

export function Field({
  name,
  doc,
  error,
  mark,
  group,
  children,
}: {
  name: string;
  doc?: ReactNode;
  error?: string | undefined;
  mark?: string | undefined; // a note on the current value
  group?: boolean; // several controls with one label
  children: (wiring: Wiring) => ReactNode;
}) {
  const id = useId();
  const describedBy = [mark && `${id}-mark`, error && `${id}-error`, doc && `${id}-doc`]
    .filter(Boolean)
    .join(' ');
  const wiring: Wiring = {
    id,
    'aria-describedby': describedBy || undefined,
    'aria-invalid': error ? true : undefined,
  };
  return (
    <div
      className="flex min-w-0 flex-col gap-1.5"
      {...(group ? { role: 'group', 'aria-labelledby': `${id}-name` } : {})}
    >
      <div className="flex flex-wrap items-baseline justify-between gap-x-2">
        {group ? (
          <span id={`${id}-name`} className="text-sm font-medium">
            {name}
          </span>
        ) : (
          <label htmlFor={id} className="text-sm font-medium">
            {name}
          </label>
        )}
        {mark && (
          <span id={`${id}-mark`} className="text-xs text-sun-text">
            {mark}
          </span>
        )}
      </div>
      {children(wiring)}
      {error && (
        <p id={`${id}-error`} className="text-xs text-bad">
          {error}
        </p>
      )}
      {doc && (
        <p id={`${id}-doc`} className="text-xs text-soft">
          {doc}
        </p>
      )}
    </div>
  );
}
