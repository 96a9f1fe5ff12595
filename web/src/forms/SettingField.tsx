// The form field of one setting, by the type of its value.

import { Field, INPUT, type Wiring } from './Field';
import { type Entry, entryOf, readEntry, type Setting, type Shape, shapeOf } from './settingSchema';
import { settingLabel } from './settingLabels';

interface Props {
  setting: Setting;
  entry: Entry | undefined; // undefined: unchanged
  serverError: string | undefined;
  mark?: string | undefined; // the source of the default, shown while unchanged
  onChange: (entry: Entry) => void;
}

export function SettingField({ setting, entry, serverError, mark, onChange }: Props) {
  const shape = shapeOf(setting.form);
  const defaultEntry = entryOf(setting.default);
  const text = entry ?? defaultEntry;
  const result = entry === undefined ? undefined : readEntry(shape, entry);
  const error = serverError ?? (result && 'error' in result ? result.error : undefined);
  const name = settingLabel(setting.name);
  const fieldProps = { name, doc: setting.doc, error, mark: entry === undefined ? mark : undefined };
  if (shape.kind === 'switch')
    return <Switch fieldProps={fieldProps} on={text === true} onChange={onChange} />;
  return (
    <Field {...fieldProps} group={shape.kind === 'list'}>
      {(wiring) =>
        shape.kind === 'list' ? (
          <List name={name} shape={shape} wiring={wiring} entry={text} onChange={onChange} />
        ) : (
          <SettingInput
            shape={shape}
            wiring={wiring}
            text={String(text)}
            defaultEntry={String(defaultEntry)}
            onChange={onChange}
          />
        )
      }
    </Field>
  );
}

function Switch(props: {
  fieldProps: { name: string; doc: string; error: string | undefined; mark: string | undefined };
  on: boolean;
  onChange: (on: boolean) => void;
}) {
  return (
    <Field {...props.fieldProps}>
      {(wiring) => (
        <input
          {...wiring}
          type="checkbox"
          className="my-2.5 size-5 accent-sun"
          checked={props.on}
          onChange={(event) => props.onChange(event.target.checked)}
        />
      )}
    </Field>
  );
}

interface SettingInputProps {
  shape: Shape;
  wiring: Partial<Wiring>;
  text: string;
  defaultEntry: string;
  label?: string;
  onChange: (text: string) => void;
}

function SettingInput({ shape, wiring, text, defaultEntry, label, onChange }: SettingInputProps) {
  if (shape.kind === 'choice') {
    return (
      <select
        {...wiring}
        aria-label={label}
        className={INPUT}
        value={text}
        onChange={(event) => onChange(event.target.value)}
      >
        {shape.empty && <option value="">Automatic</option>}
        {shape.options.map((one) => (
          <option key={one} value={String(one)}>
            {one}
          </option>
        ))}
      </select>
    );
  }
  const number =
    shape.kind === 'number'
      ? { type: 'number', min: shape.min, max: shape.max, step: stepOf(shape.whole, defaultEntry) }
      : { type: 'text' };
  return (
    <input
      {...wiring}
      {...number}
      aria-label={label}
      className={INPUT}
      value={text}
      placeholder={shape.empty ? 'Automatic' : undefined}
      onChange={(event) => onChange(event.target.value)}
    />
  );
}

function List({
  name,
  shape,
  wiring,
  entry,
  onChange,
}: {
  name: string;
  shape: Shape & { kind: 'list' };
  wiring: Wiring;
  entry: Entry;
  onChange: (texts: string[]) => void;
}) {
  const entries = Array.isArray(entry) ? entry : [];
  const texts = Array.from({ length: Math.max(shape.min, entries.length, 1) }, (_, i) => entries[i] ?? '');
  return (
    <div className="flex flex-wrap gap-2">
      {texts.map((text, i) => (
        <div key={i} className="w-24">
          <SettingInput
            shape={shape.item}
            wiring={{
              'aria-describedby': wiring['aria-describedby'],
              'aria-invalid': wiring['aria-invalid'],
            }}
            text={text}
            defaultEntry={text}
            label={`${name}, ${i + 1}`}
            onChange={(text) => onChange(texts.map((one, k) => (k === i ? text : one)))}
          />
        </div>
      ))}
    </div>
  );
}

/** Step of the arrow keys: the power of ten of the default, 0.0001 for 0.0005. */
export function stepOf(whole: boolean, defaultEntry: string): number {
  if (whole) return 1;
  const size = Math.abs(Number(defaultEntry));
  return size > 0 ? Number((10 ** Math.min(0, Math.floor(Math.log10(size)))).toPrecision(1)) : 0.01;
}
