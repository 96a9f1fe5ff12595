// A field of a form: its name, what it is about, and what is wrong with it.

import { type ReactNode, useId } from 'react';

export const INPUT =
  'h-10 w-full min-w-0 rounded-lg border border-line bg-surface px-3 text-sm text-ink tabular-nums aria-[invalid=true]:border-bad disabled:opacity-60';

/** What a control needs so that readers of the screen find its words. */
export interface Wiring {
  id: string;
  'aria-describedby': string | undefined;
  'aria-invalid': boolean | undefined;
}

export function Field({
  name,
  doc,
  fault,
  mark,
  group,
  children,
}: {
  name: string;
  doc?: ReactNode;
  fault?: string | undefined;
  mark?: string | undefined; // a word on what stands there now
  group?: boolean; // several controls of one name
  children: (wiring: Wiring) => ReactNode;
}) {
  const id = useId();
  const told = [mark && `${id}-mark`, fault && `${id}-fault`, doc && `${id}-doc`].filter(Boolean).join(' ');
  const wiring: Wiring = {
    id,
    'aria-describedby': told || undefined,
    'aria-invalid': fault ? true : undefined,
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
      {fault && (
        <p id={`${id}-fault`} className="text-xs text-bad">
          {fault}
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
