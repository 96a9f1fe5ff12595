import type { RunSummary } from '../api/previews';
import { Field, INPUT } from '../forms/Field';
import { ago, decibel } from '../lib/format';
import { methodName } from './methodLabels';

/** Which of the runs a room is about. */
export function RunSelect({
  runs,
  run,
  onChoose,
}: {
  runs: RunSummary[];
  run: RunSummary;
  onChoose: (id: string) => void;
}) {
  return (
    <div className="w-full max-w-md">
      <Field name="Run">
        {(wiring) => (
          <select
            {...wiring}
            className={INPUT}
            value={run.id}
            onChange={(event) => onChoose(event.target.value)}
          >
            {runs.map((one) => (
              <option key={one.id} value={one.id}>
                {methodName(one.method)}, {ago(one.created)}
                {one.psnr === null ? '' : `, ${decibel(one.psnr)}`}
              </option>
            ))}
          </select>
        )}
      </Field>
    </div>
  );
}
