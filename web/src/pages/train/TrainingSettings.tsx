// All settings of a training.

import { Field, INPUT } from '../../forms/Field';
import { Disclosure } from '../../forms/Disclosure';
import { SettingField } from '../../forms/SettingField';
import { methodName, methodDescription } from '../../runs/methodLabels';
import { type Method, methodOf, settingsOf, type TrainingFormState } from './trainingFormState';

interface Props {
  state: TrainingFormState;
  methods: Method[];
  errors: Record<string, string>;
  onChange: (part: Partial<TrainingFormState>) => void;
}

export function TrainingSettings(props: Props) {
  const { state, methods, errors, onChange } = props;
  const method = methodOf(state, methods);
  const settings = settingsOf(method);
  const hasErrors = settings.some((setting) => errors[`settings.${setting.name}`]);
  return (
    <div className="flex flex-col gap-6 pt-4">
      <div className="grid gap-x-6 gap-y-5 sm:grid-cols-2">
        <MethodField {...props} method={method} />
        <General {...props} />
      </div>
      {settings.length > 0 && (
        <Disclosure
          title={`Settings of ${method ? methodName(method.name) : 'this method'}`}
          open={hasErrors}
        >
          <div className="grid gap-x-6 gap-y-5 sm:grid-cols-2 lg:grid-cols-3">
            {settings.map((setting) => (
              <SettingField
                key={`${method?.name}.${setting.name}`}
                setting={setting}
                entry={state.entries[setting.name]}
                serverError={errors[`settings.${setting.name}`]}
                onChange={(entry) => onChange({ entries: { ...state.entries, [setting.name]: entry } })}
              />
            ))}
          </div>
        </Disclosure>
      )}
    </div>
  );
}

function MethodField({ methods, method, errors, onChange }: Props & { method: Method | undefined }) {
  return (
    <Field name="Method" doc={method && methodDescription(method.name)} error={errors.method}>
      {(wiring) => (
        <select
          {...wiring}
          className={INPUT}
          value={method?.name ?? ''}
          disabled={!methods.length}
          onChange={(event) => onChange({ method: event.target.value, entries: {} })}
        >
          {!methods.length && <option value="">Loading …</option>}
          {methods.map((offer) => (
            <option key={offer.name} value={offer.name}>
              {methodName(offer.name)}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

const GENERAL = [
  {
    field: 'downscale',
    name: 'Downscale',
    doc: 'Divide width and height of the photos. Empty = automatic.',
    input: { min: 1, max: 64, step: 0.5 },
  },
  {
    field: 'holdout',
    name: 'Hold-out interval',
    doc: 'Hold out every Nth photo. 0 = none. Empty = dataset default.',
    input: { min: 0, step: 1 },
  },
  {
    field: 'seed',
    name: 'Seed',
    doc: 'Seed of the random numbers. Empty = 0.',
    input: { min: 0, step: 1 },
  },
] as const;

function General({ state, errors, onChange }: Props) {
  return (
    <>
      <BudgetField state={state} errors={errors} onChange={onChange} />
      {GENERAL.map(({ field, name, doc, input }) => (
        <Field key={field} name={name} doc={doc} error={errors[field]}>
          {(wiring) => (
            <input
              {...wiring}
              {...input}
              type="number"
              className={INPUT}
              value={state[field]}
              placeholder="Automatic"
              onChange={(event) => onChange({ [field]: event.target.value })}
            />
          )}
        </Field>
      ))}
    </>
  );
}

function BudgetField({ state: { budget }, errors, onChange }: Pick<Props, 'state' | 'errors' | 'onChange'>) {
  return (
    <Field
      name="Budget"
      doc="Training time or steps; loading and evaluation do not count."
      error={errors[budget.unit]}
    >
      {(wiring) => (
        <div className="flex gap-2">
          <input
            {...wiring}
            type="number"
            min={1}
            step={budget.unit === 'seconds' ? 10 : 100}
            className={INPUT}
            value={budget.amount}
            onChange={(event) => onChange({ budget: { ...budget, amount: event.target.value } })}
          />
          <select
            aria-label="Budget unit"
            className={`${INPUT} max-w-30`}
            value={budget.unit}
            onChange={(event) =>
              onChange({ budget: { ...budget, unit: event.target.value === 'steps' ? 'steps' : 'seconds' } })
            }
          >
            <option value="seconds">seconds</option>
            <option value="steps">steps</option>
          </select>
        </div>
      )}
    </Field>
  );
}
