import type { RunSummary } from '../api/previews';
import { Field, INPUT } from '../forms/Field';
import { formatAge, formatDecibels } from '../lib/format';
import { methodName } from './methodLabels';

/** A selection of the run that a tab shows. */
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
                {methodName(one.method)}, {formatAge(one.created)}
                {one.psnr === null ? '' : `, ${formatDecibels(one.psnr)}`}
              </option>
            ))}
          </select>
        )}
      </Field>
    </div>
  );
}
