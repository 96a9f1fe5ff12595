// Cards to choose what to export and its file format.

import { Box, Film, Grid3x3, Grip, Sparkles } from 'lucide-react';
import type { ReactNode } from 'react';

import { Disclosure } from '../../forms/Disclosure';
import { OptionCard } from '../../forms/OptionCard';
import { type Form, type ExportTarget, TARGETS } from './exportFormats';

const ICONS: Record<ExportTarget, ReactNode> = {
  splats: <Sparkles />,
  mesh: <Box />,
  points: <Grip />,
  voxels: <Grid3x3 />,
  video: <Film />,
};

export function TargetCards({
  targets,
  selected,
  onChoose,
}: {
  targets: ExportTarget[];
  selected: ExportTarget;
  onChoose: (target: ExportTarget) => void;
}) {
  return (
    <Cards legend="Content" columns="sm:grid-cols-2 lg:grid-cols-5">
      {targets.map((target) => (
        <OptionCard
          key={target}
          group="want"
          name={TARGETS[target][0]}
          icon={ICONS[target]}
          checked={target === selected}
          onChoose={() => onChoose(target)}
        >
          {TARGETS[target][1]}
        </OptionCard>
      ))}
    </Cards>
  );
}

export function FormatCards({
  forms,
  selected,
  onChoose,
}: {
  forms: Form[];
  selected: string;
  onChoose: (form: string) => void;
}) {
  const card = (format: Form) => (
    <OptionCard
      key={format.form}
      group="form"
      name={format.name}
      mark={format === forms[0] ? 'Recommended' : undefined}
      checked={format.form === selected}
      onChoose={() => onChoose(format.form)}
    >
      {format.readers}
    </OptionCard>
  );
  const common = forms.filter((format) => format.common);
  const others = forms.filter((format) => !format.common);
  return (
    <div className="flex flex-col gap-4">
      <Cards legend="Format" columns="sm:grid-cols-2 lg:grid-cols-3">
        {common.map(card)}
      </Cards>
      {others.length > 0 && (
        <Disclosure plain title="More formats" open={others.some((format) => format.form === selected)}>
          <Cards legend="More formats" hidden columns="sm:grid-cols-2 lg:grid-cols-3">
            {others.map(card)}
          </Cards>
        </Disclosure>
      )}
    </div>
  );
}

function Cards({
  legend,
  hidden,
  columns,
  children,
}: {
  legend: string;
  hidden?: boolean; // for screen readers only
  columns: string;
  children: ReactNode;
}) {
  return (
    <fieldset className="min-w-0">
      <legend className={hidden ? 'sr-only' : 'mb-2 text-sm font-semibold'}>{legend}</legend>
      <div className={`grid gap-3 ${columns}`}>{children}</div>
    </fieldset>
  );
}
