// The measured length, and its length in metres.

import { type FormEvent, useState } from 'react';

import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { formatLength } from '../../geometry/length';
import type { Measure } from './useMeasure';

export function MeasurePanel({ measure }: { measure: Measure }) {
  return (
    <Panel
      title="Measure"
      aside={
        <Button small variant={measure.on ? 'plain' : 'quiet'} onClick={measure.toggle}>
          {measure.on ? 'Done' : 'Pick two points'}
        </Button>
      }
    >
      <div className="flex flex-col gap-3 text-sm">
        <p role="status" className="text-soft">
          {words(measure)}
        </p>
        {measure.units !== null && <Known key={measure.ends.join()} measure={measure} />}
        {measure.metres !== null && (
          <p className="flex items-center justify-between gap-2 text-xs text-soft">
            One unit is {formatLength(1, measure.metres)}.
            <Button small variant="quiet" onClick={() => measure.say(null)}>
              Forget
            </Button>
          </p>
        )}
      </div>
    </Panel>
  );
}

function words({ on, ends, units, metres }: Measure): string {
  if (units !== null) return `The line is ${formatLength(units, metres)} long.`;
  if (!on) return 'Measure the distance between two points.';
  const how = 'Click it, or centre it and press Enter.';
  return ends.length === 0 ? `Pick the first point. ${how}` : `Pick the second point. ${how}`;
}

/** A form for the known length of the line, which sets the scale of the scene. */
function Known({ measure }: { measure: Measure }) {
  const [text, setText] = useState('');
  const value = Number(text.replace(',', '.'));
  const fine = value > 0 && Number.isFinite(value);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (fine) measure.say(value);
  };
  return (
    <form onSubmit={submit} className="flex items-end gap-2">
      <label className="flex-1 text-xs text-soft">
        Known length in metres
        <input
          value={text}
          inputMode="decimal"
          onChange={(event) => setText(event.target.value)}
          className="mt-1 h-8 w-full rounded-lg border border-line bg-ground px-2 text-sm text-ink tabular-nums"
        />
      </label>
      <Button type="submit" small disabled={!fine}>
        Set length
      </Button>
    </form>
  );
}
