// The options of a file: kind of points, purpose, settings and axes.

import { Field, INPUT } from '../../forms/Field';
import { Disclosure } from '../../forms/Disclosure';
import { SettingField } from '../../forms/SettingField';
import { SegmentedControl } from '../../forms/SegmentedControl';
import { PURPOSES } from './exportFormats';
import { type File, type Frame, isFromPurpose, type Origin, type Wish } from './exportFormState';

interface Props {
  wish: Wish;
  file: File;
  errors: Record<string, string>;
  onChange: (part: Partial<Wish>) => void;
}

export function FileOptions(props: Props) {
  const { file } = props;
  return (
    <>
      {file.form.kinds.length > 1 && <KindChoice {...props} />}
      {file.purposes.length > 0 && <PurposeChoice {...props} />}
      {file.settings.length > 0 && <Settings {...props} />}
      <Axes {...props} />
    </>
  );
}

function KindChoice({ file, onChange }: Props) {
  const surface = file.kind.kind === 'points';
  return (
    <div className="max-w-xl">
      <SegmentedControl
        name="Point positions"
        options={[
          { value: 'points', label: 'On surfaces' },
          { value: 'centres', label: 'Centres of gaussians' },
        ]}
        value={surface ? 'points' : 'centres'}
        onChange={(kind) => onChange({ kind, entries: {} })}
      />
      <p className="mt-1.5 text-xs text-soft">
        {surface ? 'On solid surfaces seen by the cameras.' : 'One for each opaque gaussian.'}
      </p>
    </div>
  );
}

function PurposeChoice({ file: { purposes, purpose }, onChange }: Props) {
  return (
    <div className="max-w-xl">
      <SegmentedControl
        name="Purpose"
        options={[
          { value: 'usual', label: 'Default' },
          ...purposes.map((one) => ({ value: one, label: PURPOSES[one][0] })),
        ]}
        value={purpose ?? 'usual'}
        onChange={(value) => onChange({ purpose: purposes.find((one) => one === value) ?? null })}
      />
      <p className="mt-1.5 text-xs text-soft">
        {purpose ? PURPOSES[purpose][1] : 'A balance of size and detail.'}
      </p>
    </div>
  );
}

function Settings({ wish, file, errors, onChange }: Props) {
  const mark = file.purpose ? `For ${PURPOSES[file.purpose][0].toLowerCase()}` : undefined;
  return (
    <Disclosure title="Settings" open={file.settings.some((one) => errors[`settings.${one.name}`])}>
      <div className="grid gap-x-6 gap-y-5 sm:grid-cols-2 lg:grid-cols-3">
        {file.settings.map((setting) => (
          <SettingField
            key={`${file.form.form}.${file.kind.kind}.${setting.name}`}
            setting={setting}
            entry={wish.entries[setting.name]}
            serverError={errors[`settings.${setting.name}`]}
            mark={isFromPurpose(file, setting.name) ? mark : undefined}
            onChange={(entry) => onChange({ entries: { ...wish.entries, [setting.name]: entry } })}
          />
        ))}
      </div>
    </Disclosure>
  );
}

const FRAMES: Record<Frame, string> = {
  auto: 'Format default',
  upright: 'Upright',
  capture: 'As captured',
};
const ORIGINS: Record<Origin, string> = {
  auto: 'Format default',
  ground: 'Centre on the ground',
  centre: 'Centre',
  capture: 'As captured',
};

function Axes({ wish, errors, onChange }: Props) {
  return (
    <Disclosure title="Axes" open={Boolean(errors.frame ?? errors.origin)}>
      <div className="grid gap-x-6 gap-y-5 sm:grid-cols-2">
        <Field
          name="Up axis"
          doc="Splat viewers expect the training axes, other programs an upright scene."
          error={errors.frame}
        >
          {(wiring) => (
            <Select {...wiring} words={FRAMES} value={wish.frame} onChange={(frame) => onChange({ frame })} />
          )}
        </Field>
        <Field name="Origin" doc="The point at 0, 0, 0 in the file." error={errors.origin}>
          {(wiring) => (
            <Select
              {...wiring}
              words={ORIGINS}
              value={wish.origin}
              onChange={(origin) => onChange({ origin })}
            />
          )}
        </Field>
      </div>
    </Disclosure>
  );
}

function Select<T extends string>({
  words,
  value,
  onChange,
  ...wiring
}: {
  words: Record<T, string>;
  value: T;
  onChange: (value: T) => void;
}) {
  const all = Object.keys(words) as T[];
  return (
    <select
      {...wiring}
      className={INPUT}
      value={value}
      onChange={(event) => onChange(all.find((one) => one === event.target.value) ?? value)}
    >
      {all.map((one) => (
        <option key={one} value={one}>
          {words[one]}
        </option>
      ))}
    </select>
  );
}
