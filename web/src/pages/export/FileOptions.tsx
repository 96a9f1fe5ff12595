// The options of a file: kind of points, purpose, settings and axes.

import { Field, INPUT } from '../../forms/Field';
import { Disclosure } from '../../forms/Disclosure';
import { SettingField } from '../../forms/SettingField';
import { SegmentedControl } from '../../forms/SegmentedControl';
import { PURPOSES } from './exportFormats';
import { type File, type Frame, isFromPurpose, type Origin, type ExportFormState } from './exportFormState';

interface Props {
  state: ExportFormState;
  file: File;
  errors: Record<string, string>;
  onChange: (part: Partial<ExportFormState>) => void;
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
          ...purposes.map((offered) => ({ value: offered, label: PURPOSES[offered][0] })),
        ]}
        value={purpose ?? 'usual'}
        onChange={(value) => onChange({ purpose: purposes.find((offered) => offered === value) ?? null })}
      />
      <p className="mt-1.5 text-xs text-soft">
        {purpose ? PURPOSES[purpose][1] : 'A balance of size and detail.'}
      </p>
    </div>
  );
}

function Settings({ state, file, errors, onChange }: Props) {
  const mark = file.purpose ? `For ${PURPOSES[file.purpose][0].toLowerCase()}` : undefined;
  return (
    <Disclosure title="Settings" open={file.settings.some((setting) => errors[`settings.${setting.name}`])}>
      <div className="grid gap-x-6 gap-y-5 sm:grid-cols-2 lg:grid-cols-3">
        {file.settings.map((setting) => (
          <SettingField
            key={`${file.form.form}.${file.kind.kind}.${setting.name}`}
            setting={setting}
            entry={state.entries[setting.name]}
            serverError={errors[`settings.${setting.name}`]}
            mark={isFromPurpose(file, setting.name) ? mark : undefined}
            onChange={(entry) => onChange({ entries: { ...state.entries, [setting.name]: entry } })}
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

function Axes({ state, errors, onChange }: Props) {
  return (
    <Disclosure title="Axes" open={Boolean(errors.frame ?? errors.origin)}>
      <div className="grid gap-x-6 gap-y-5 sm:grid-cols-2">
        <Field
          name="Up axis"
          doc="Splat viewers expect the training axes, other programs an upright scene."
          error={errors.frame}
        >
          {(wiring) => (
            <Select
              {...wiring}
              labels={FRAMES}
              value={state.frame}
              onChange={(frame) => onChange({ frame })}
            />
          )}
        </Field>
        <Field name="Origin" doc="The point at 0, 0, 0 in the file." error={errors.origin}>
          {(wiring) => (
            <Select
              {...wiring}
              labels={ORIGINS}
              value={state.origin}
              onChange={(origin) => onChange({ origin })}
            />
          )}
        </Field>
      </div>
    </Disclosure>
  );
}

function Select<T extends string>({
  labels,
  value,
  onChange,
  ...wiring
}: {
  labels: Record<T, string>;
  value: T;
  onChange: (value: T) => void;
}) {
  const options = Object.keys(labels) as T[];
  return (
    <select
      {...wiring}
      className={INPUT}
      value={value}
      onChange={(event) => onChange(options.find((option) => option === event.target.value) ?? value)}
    >
      {options.map((option) => (
        <option key={option} value={option}>
          {labels[option]}
        </option>
      ))}
    </select>
  );
}
