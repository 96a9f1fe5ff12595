// What can be chosen about a film.

import { Field, INPUT } from '../../forms/Field';
import { type Film, SIZES } from './videoFormState';

export function FilmOptions({
  film,
  faults,
  onChange,
}: {
  film: Film;
  faults: Record<string, string>;
  onChange: (film: Film) => void;
}) {
  const change = (part: Partial<Film>) => onChange({ ...film, ...part });
  return (
    <div className="grid grid-cols-2 gap-4 sm:grid-cols-4">
      <Field name="Way">
        {(wiring) => (
          <select
            {...wiring}
            className={INPUT}
            value={film.path}
            onChange={(event) => change({ path: event.target.value === 'spiral' ? 'spiral' : 'orbit' })}
          >
            <option value="orbit">Around it</option>
            <option value="spiral">A spiral before it</option>
          </select>
        )}
      </Field>
      <Field name="Size" fault={faults.size}>
        {(wiring) => (
          <select
            {...wiring}
            className={INPUT}
            value={film.size}
            onChange={(event) => change({ size: event.target.value })}
          >
            {SIZES.map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        )}
      </Field>
      <Field name="Seconds" fault={faults.seconds ?? faults.frames}>
        {(wiring) => (
          <input
            {...wiring}
            type="number"
            min={0.5}
            step={0.5}
            className={INPUT}
            value={film.seconds}
            onChange={(event) => change({ seconds: event.target.value })}
          />
        )}
      </Field>
      <Field name="Frames a second" fault={faults.fps}>
        {(wiring) => (
          <input
            {...wiring}
            type="number"
            min={1}
            max={240}
            className={INPUT}
            value={film.fps}
            onChange={(event) => change({ fps: event.target.value })}
          />
        )}
      </Field>
    </div>
  );
}
