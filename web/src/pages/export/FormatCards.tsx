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

export function Wants({
  targets,
  chosen,
  onChoose,
}: {
  targets: ExportTarget[];
  chosen: ExportTarget;
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
          checked={target === chosen}
          onChoose={() => onChoose(target)}
        >
          {TARGETS[target][1]}
        </OptionCard>
      ))}
    </Cards>
  );
}

export function Forms({
  forms,
  chosen,
  onChoose,
}: {
  forms: Form[];
  chosen: string;
  onChoose: (form: string) => void;
}) {
  const card = (one: Form) => (
    <OptionCard
      key={one.form}
      group="form"
      name={one.name}
      mark={one === forms[0] ? 'Recommended' : undefined}
      checked={one.form === chosen}
      onChoose={() => onChoose(one.form)}
    >
      {one.readers}
    </OptionCard>
  );
  const common = forms.filter((one) => one.common);
  const others = forms.filter((one) => !one.common);
  return (
    <div className="flex flex-col gap-4">
      <Cards legend="Format" columns="sm:grid-cols-2 lg:grid-cols-3">
        {common.map(card)}
      </Cards>
      {others.length > 0 && (
        <Disclosure plain title="More formats" open={others.some((one) => one.form === chosen)}>
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
