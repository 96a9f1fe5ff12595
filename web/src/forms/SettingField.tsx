// One setting, by the shape of its values.

import { Field, INPUT, type Wiring } from './Field';
import { type Entry, entryOf, read, type Setting, type Shape, shapeOf } from './settingSchema';
import { settingName } from './settingLabels';

interface Props {
  setting: Setting;
  entry: Entry | undefined; // undefined: nobody touched it
  refusal: string | undefined;
  mark?: string | undefined; // where its usual value is from, until somebody touches it
  onChange: (entry: Entry) => void;
}

export function SettingField({ setting, entry, refusal, mark, onChange }: Props) {
  const shape = shapeOf(setting.form);
  const usual = entryOf(setting.default);
  const now = entry ?? usual;
  const found = entry === undefined ? undefined : read(shape, entry);
  const fault = refusal ?? (found && 'fault' in found ? found.fault : undefined);
  const name = settingName(setting.name);
  const told = { name, doc: setting.doc, fault, mark: entry === undefined ? mark : undefined };
  if (shape.kind === 'switch') return <Switch told={told} on={now === true} onChange={onChange} />;
  return (
    <Field {...told} group={shape.kind === 'list'}>
      {(wiring) =>
        shape.kind === 'list' ? (
          <List name={name} shape={shape} wiring={wiring} entry={now} onChange={onChange} />
        ) : (
          <One shape={shape} wiring={wiring} text={String(now)} usual={String(usual)} onChange={onChange} />
        )
      }
    </Field>
  );
}

function Switch(props: {
  told: { name: string; doc: string; fault: string | undefined; mark: string | undefined };
  on: boolean;
  onChange: (on: boolean) => void;
}) {
  return (
    <Field {...props.told}>
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

interface OneProps {
  shape: Shape;
  wiring: Partial<Wiring>;
  text: string;
  usual: string;
  label?: string;
  onChange: (text: string) => void;
}

function One({ shape, wiring, text, usual, label, onChange }: OneProps) {
  if (shape.kind === 'choice') {
    return (
      <select
        {...wiring}
        aria-label={label}
        className={INPUT}
        value={text}
        onChange={(event) => onChange(event.target.value)}
      >
        {shape.empty && <option value="">Chosen for you</option>}
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
      ? { type: 'number', min: shape.least, max: shape.most, step: stepOf(shape.whole, usual) }
      : { type: 'text' };
  return (
    <input
      {...wiring}
      {...number}
      aria-label={label}
      className={INPUT}
      value={text}
      placeholder={shape.empty ? 'Chosen for you' : undefined}
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
  const given = Array.isArray(entry) ? entry : [];
  const texts = Array.from({ length: Math.max(shape.least, given.length, 1) }, (_, i) => given[i] ?? '');
  return (
    <div className="flex flex-wrap gap-2">
      {texts.map((text, i) => (
        <div key={i} className="w-24">
          <One
            shape={shape.item}
            wiring={{
              'aria-describedby': wiring['aria-describedby'],
              'aria-invalid': wiring['aria-invalid'],
            }}
            text={text}
            usual={text}
            label={`${name}, ${i + 1}`}
            onChange={(now) => onChange(texts.map((one, k) => (k === i ? now : one)))}
          />
        </div>
      ))}
    </div>
  );
}

/** A press of an arrow key changes a number by its own size: 0.0005 by 0.0001. */
export function stepOf(whole: boolean, usual: string): number {
  if (whole) return 1;
  const size = Math.abs(Number(usual));
  return size > 0 ? Number((10 ** Math.min(0, Math.floor(Math.log10(size)))).toPrecision(1)) : 0.01;
}
