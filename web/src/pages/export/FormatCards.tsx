// What to make of a run, and the form of its file: a card for each.

import { Box, Film, Grid3x3, Grip, Sparkles } from 'lucide-react';
import type { ReactNode } from 'react';

import { Fold } from '../../forms/Disclosure';
import { OptionCard } from '../../forms/OptionCard';
import { type Form, type Want, WANTS } from './exportFormats';

const ICONS: Record<Want, ReactNode> = {
  splats: <Sparkles />,
  mesh: <Box />,
  points: <Grip />,
  voxels: <Grid3x3 />,
  film: <Film />,
};

export function Wants({
  wants,
  chosen,
  onChoose,
}: {
  wants: Want[];
  chosen: Want;
  onChoose: (want: Want) => void;
}) {
  return (
    <Cards legend="What do you want?" columns="sm:grid-cols-2 lg:grid-cols-5">
      {wants.map((want) => (
        <OptionCard
          key={want}
          group="want"
          name={WANTS[want][0]}
          icon={ICONS[want]}
          checked={want === chosen}
          onChoose={() => onChoose(want)}
        >
          {WANTS[want][1]}
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
      <Cards legend="Which program shall open it?" columns="sm:grid-cols-2 lg:grid-cols-3">
        {common.map(card)}
      </Cards>
      {others.length > 0 && (
        <Fold plain title="More forms" open={others.some((one) => one.form === chosen)}>
          <Cards legend="More forms" hidden columns="sm:grid-cols-2 lg:grid-cols-3">
            {others.map(card)}
          </Cards>
        </Fold>
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
  hidden?: boolean; // said to readers of the screen alone
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
