// What can be chosen about a file: where its points are, what it is for, its settings, and how it lies.

import { Field, INPUT } from '../../forms/Field';
import { Fold } from '../../forms/Disclosure';
import { SettingField } from '../../forms/SettingField';
import { Choice } from '../../forms/SegmentedControl';
import { PURPOSES } from './exportFormats';
import { type File, type Frame, ofPurpose, type Origin, type Wish } from './exportFormState';

interface Props {
  wish: Wish;
  file: File;
  faults: Record<string, string>;
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
      <Choice
        name="Where the points are"
        options={[
          { value: 'points', label: 'On surfaces' },
          { value: 'centres', label: 'Centres of gaussians' },
        ]}
        value={surface ? 'points' : 'centres'}
        onChange={(kind) => onChange({ kind, entries: {} })}
      />
      <p className="mt-1.5 text-xs text-soft">
        {surface ? 'Where the cameras see something solid.' : 'One for each gaussian that is not mere haze.'}
      </p>
    </div>
  );
}

function PurposeChoice({ file: { purposes, purpose }, onChange }: Props) {
  return (
    <div className="max-w-xl">
      <Choice
        name="What it is for"
        options={[
          { value: 'usual', label: 'Usual' },
          ...purposes.map((one) => ({ value: one, label: PURPOSES[one][0] })),
        ]}
        value={purpose ?? 'usual'}
        onChange={(value) => onChange({ purpose: purposes.find((one) => one === value) ?? null })}
      />
      <p className="mt-1.5 text-xs text-soft">
        {purpose ? PURPOSES[purpose][1] : 'Between small and fine: the one to begin with.'}
      </p>
    </div>
  );
}

function Settings({ wish, file, faults, onChange }: Props) {
  const mark = file.purpose ? `For ${PURPOSES[file.purpose][0].toLowerCase()}` : undefined;
  return (
    <Fold title="Settings" open={file.settings.some((one) => faults[`settings.${one.name}`])}>
      <div className="grid gap-x-6 gap-y-5 sm:grid-cols-2 lg:grid-cols-3">
        {file.settings.map((setting) => (
          <SettingField
            key={`${file.form.form}.${file.kind.kind}.${setting.name}`}
            setting={setting}
            entry={wish.entries[setting.name]}
            refusal={faults[`settings.${setting.name}`]}
            mark={ofPurpose(file, setting.name) ? mark : undefined}
            onChange={(entry) => onChange({ entries: { ...wish.entries, [setting.name]: entry } })}
          />
        ))}
      </div>
    </Fold>
  );
}

const FRAMES: Record<Frame, string> = {
  auto: 'As other programs expect',
  upright: 'Upright',
  capture: 'As captured',
};
const ORIGINS: Record<Origin, string> = {
  auto: 'As other programs expect',
  ground: 'Below its middle, on the ground',
  centre: 'In its middle',
  capture: 'As captured',
};

function Axes({ wish, faults, onChange }: Props) {
  return (
    <Fold title="Axes" open={Boolean(faults.frame ?? faults.origin)}>
      <div className="grid gap-x-6 gap-y-5 sm:grid-cols-2">
        <Field
          name="Which way is up"
          doc="Programs for splats expect a scene as it was learned, all others one that stands upright."
          fault={faults.frame}
        >
          {(wiring) => (
            <Select {...wiring} words={FRAMES} value={wish.frame} onChange={(frame) => onChange({ frame })} />
          )}
        </Field>
        <Field name="Where its origin is" doc="The place that is 0, 0, 0 in the file." fault={faults.origin}>
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
    </Fold>
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
