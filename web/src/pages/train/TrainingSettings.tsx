// Everything that can be chosen about a training, for those who want to.

import { Field, INPUT } from '../../forms/Field';
import { Fold } from '../../forms/Disclosure';
import { SettingField } from '../../forms/SettingField';
import { methodName, methodWords } from '../../runs/methodLabels';
import { type Method, methodOf, settingsOf, type Wish } from './trainingFormState';

interface Props {
  wish: Wish;
  methods: Method[];
  faults: Record<string, string>;
  onChange: (part: Partial<Wish>) => void;
}

export function SettingsForm(props: Props) {
  const { wish, methods, faults, onChange } = props;
  const method = methodOf(wish, methods);
  const settings = settingsOf(method);
  const touched = settings.some((one) => faults[`settings.${one.name}`]);
  return (
    <div className="flex flex-col gap-6 pt-4">
      <div className="grid gap-x-6 gap-y-5 sm:grid-cols-2">
        <MethodField {...props} method={method} />
        <General {...props} />
      </div>
      {settings.length > 0 && (
        <Fold title={`Finer settings of ${method ? methodName(method.name) : 'this method'}`} open={touched}>
          <div className="grid gap-x-6 gap-y-5 sm:grid-cols-2 lg:grid-cols-3">
            {settings.map((setting) => (
              <SettingField
                key={`${method?.name}.${setting.name}`}
                setting={setting}
                entry={wish.entries[setting.name]}
                refusal={faults[`settings.${setting.name}`]}
                onChange={(entry) => onChange({ entries: { ...wish.entries, [setting.name]: entry } })}
              />
            ))}
          </div>
        </Fold>
      )}
    </div>
  );
}

function MethodField({ methods, method, faults, onChange }: Props & { method: Method | undefined }) {
  return (
    <Field name="Method" doc={method && methodWords(method.name)} fault={faults.method}>
      {(wiring) => (
        <select
          {...wiring}
          className={INPUT}
          value={method?.name ?? ''}
          disabled={!methods.length}
          onChange={(event) => onChange({ method: event.target.value, entries: {} })}
        >
          {!methods.length && <option value="">One moment …</option>}
          {methods.map((one) => (
            <option key={one.name} value={one.name}>
              {methodName(one.name)}
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
    name: 'Make photos smaller',
    doc: 'Divides their width and height: 2 is faster and coarser. Empty: chosen by their size.',
    input: { min: 1, max: 64, step: 0.5 },
  },
  {
    field: 'holdout',
    name: 'Keep back for judging',
    doc: 'Every so many-th photo is never trained with. 0 keeps none. Empty: as the photos say.',
    input: { min: 0, step: 1 },
  },
  {
    field: 'seed',
    name: 'Seed',
    doc: 'Another number draws other lots. Empty: 0.',
    input: { min: 0, step: 1 },
  },
] as const;

function General({ wish, faults, onChange }: Props) {
  return (
    <>
      <BudgetField wish={wish} faults={faults} onChange={onChange} />
      {GENERAL.map(({ field, name, doc, input }) => (
        <Field key={field} name={name} doc={doc} fault={faults[field]}>
          {(wiring) => (
            <input
              {...wiring}
              {...input}
              type="number"
              className={INPUT}
              value={wish[field]}
              placeholder="Chosen for you"
              onChange={(event) => onChange({ [field]: event.target.value })}
            />
          )}
        </Field>
      ))}
    </>
  );
}

function BudgetField({ wish: { budget }, faults, onChange }: Pick<Props, 'wish' | 'faults' | 'onChange'>) {
  return (
    <Field
      name="Stop after"
      doc="Of training; loading and looking are not counted."
      fault={faults[budget.unit]}
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
            aria-label="Unit of the budget"
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
