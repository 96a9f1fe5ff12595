// The crop box: a range slider for each axis.

import { Slider } from 'radix-ui';

import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { type Box, withAxisRange, sliderLimits } from '../../geometry/cropBox';

const AXES = ['X', 'Y', 'Z'] as const;

export function CropPanel({
  box,
  crop,
  onCrop,
}: {
  box: Box;
  crop: Box | null;
  onCrop: (crop: Box | null) => void;
}) {
  const ends = sliderLimits(box);
  return (
    <Panel
      title="Crop"
      aside={
        <Button small variant={crop ? 'plain' : 'quiet'} onClick={() => onCrop(crop ? null : box)}>
          {crop ? 'Show all' : 'Set box'}
        </Button>
      }
    >
      {crop ? (
        <div className="flex flex-col gap-3">
          {AXES.map((name, axis) => (
            <Range
              key={name}
              name={name}
              least={ends[0][axis] as number}
              most={ends[1][axis] as number}
              value={[crop[0][axis] as number, crop[1][axis] as number]}
              onChange={(value) => onCrop(withAxisRange(crop, axis, value))}
            />
          ))}
        </div>
      ) : (
        <p className="text-sm text-soft">Hide everything outside a box. Nothing is deleted.</p>
      )}
    </Panel>
  );
}

function Range({
  name,
  least,
  most,
  value,
  onChange,
}: {
  name: string;
  least: number;
  most: number;
  value: [number, number];
  onChange: (value: [number, number]) => void;
}) {
  const thumb =
    'block size-5 rounded-full border border-line bg-surface shadow focus-visible:outline-2 focus-visible:outline-sun-text';
  return (
    <div className="flex items-center gap-3 text-xs text-soft">
      <span className="w-3 font-medium">{name}</span>
      <Slider.Root
        min={least}
        max={most}
        step={(most - least) / 200}
        minStepsBetweenThumbs={1}
        value={value}
        onValueChange={([low, high]) => low !== undefined && high !== undefined && onChange([low, high])}
        className="relative flex h-6 flex-1 touch-none items-center"
      >
        <Slider.Track className="relative h-1.5 flex-1 rounded-full bg-raised">
          <Slider.Range className="absolute h-full rounded-full bg-sun" />
        </Slider.Track>
        <Slider.Thumb aria-label={`${name} from`} className={thumb} />
        <Slider.Thumb aria-label={`${name} to`} className={thumb} />
      </Slider.Root>
    </div>
  );
}
