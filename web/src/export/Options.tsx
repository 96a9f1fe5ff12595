// What can be chosen about a file or a film.

import { Field, INPUT } from '../train/Field';
import { FILM, frames, SIZES, type Wish } from './wish';

interface Props {
  wish: Wish;
  onChange: (part: Partial<Wish>) => void;
}

export function Options({ wish, onChange }: Props) {
  if (wish.form === FILM) return <FilmOptions wish={wish} onChange={onChange} />;
  if (wish.form !== 'ply') return null;
  return (
    <label className="flex items-start gap-3 text-sm">
      <input
        type="checkbox"
        className="mt-0.5 size-4 accent-sun"
        checked={wish.points}
        onChange={(event) => onChange({ points: event.target.checked })}
      />
      <span>
        Points alone
        <span className="block text-soft">
          Only places and colours, for programs that know point clouds and no splats.
        </span>
      </span>
    </label>
  );
}

function FilmOptions({ wish, onChange }: Props) {
  const many = frames(wish);
  const fault = (field: string) => ('field' in many && many.field === field ? many.fault : undefined);
  return (
    <div className="grid grid-cols-2 gap-4 sm:grid-cols-4">
      <Field name="Way">
        {(wiring) => (
          <select
            {...wiring}
            className={INPUT}
            value={wish.path}
            onChange={(event) => onChange({ path: event.target.value === 'spiral' ? 'spiral' : 'orbit' })}
          >
            <option value="orbit">Around it</option>
            <option value="spiral">A spiral before it</option>
          </select>
        )}
      </Field>
      <Field name="Size">
        {(wiring) => (
          <select
            {...wiring}
            className={INPUT}
            value={wish.size}
            onChange={(event) => onChange({ size: event.target.value })}
          >
            {SIZES.map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        )}
      </Field>
      <Field name="Seconds" fault={fault('seconds')}>
        {(wiring) => (
          <input
            {...wiring}
            type="number"
            min={0.5}
            step={0.5}
            className={INPUT}
            value={wish.seconds}
            onChange={(event) => onChange({ seconds: event.target.value })}
          />
        )}
      </Field>
      <Field name="Frames a second" fault={fault('fps')}>
        {(wiring) => (
          <input
            {...wiring}
            type="number"
            min={1}
            max={240}
            className={INPUT}
            value={wish.fps}
            onChange={(event) => onChange({ fps: event.target.value })}
          />
        )}
      </Field>
    </div>
  );
}
