// A held-out view at full size: photo, render, slider between both, or error.

import { Tabs } from 'radix-ui';
import { useState } from 'react';

import { type ImagePair, ComparisonSlider } from './ComparisonSlider';

const WAYS = ['Slider', 'Photo', 'Render', 'Error'] as const;
const PICTURE = 'absolute inset-0 size-full object-contain';

export function ImageComparison(pictures: ImagePair) {
  const [bright, brighten] = useState(4);
  const [ratio, setRatio] = useState(4 / 3);
  const { photo, render, name } = pictures;
  return (
    <Tabs.Root defaultValue="Slider" className="flex min-w-0 flex-col gap-3">
      <Tabs.List aria-label="Display" className="flex w-fit gap-1 rounded-lg bg-raised p-1">
        {WAYS.map((way) => (
          <Tabs.Trigger
            key={way}
            value={way}
            className="rounded-md px-3 py-1.5 text-sm text-soft transition hover:text-ink data-[state=active]:bg-surface data-[state=active]:font-medium data-[state=active]:text-ink data-[state=active]:shadow-sm"
          >
            {way}
          </Tabs.Trigger>
        ))}
      </Tabs.List>
      <div
        className="relative mx-auto overflow-hidden rounded-card bg-black"
        style={{ aspectRatio: ratio, width: `min(100%, ${68 * ratio}dvh)` }}
      >
        <img
          src={photo}
          alt=""
          className="hidden"
          onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) =>
            naturalHeight && setRatio(naturalWidth / naturalHeight)
          }
        />
        <Tabs.Content value="Slider" className="absolute inset-0">
          <ComparisonSlider {...pictures} />
        </Tabs.Content>
        <Tabs.Content value="Photo" className="absolute inset-0">
          <img src={photo} alt={`${name}, ground truth`} className={PICTURE} />
        </Tabs.Content>
        <Tabs.Content value="Render" className="absolute inset-0">
          <img src={render} alt={`${name}, render`} className={PICTURE} />
        </Tabs.Content>
        <Tabs.Content value="Error" className="absolute inset-0">
          <Difference {...pictures} bright={bright} />
        </Tabs.Content>
      </div>
      <Tabs.Content value="Error" tabIndex={-1}>
        <Brightness value={bright} onChange={brighten} />
      </Tabs.Content>
    </Tabs.Root>
  );
}

/** The absolute difference, black where both are equal. */
function Difference({ photo, render, name, bright }: ImagePair & { bright: number }) {
  return (
    <div
      role="img"
      aria-label={`Error of ${name}`}
      className="absolute inset-0 isolate"
      style={{ filter: `brightness(${bright})` }}
    >
      <img src={photo} alt="" className={PICTURE} />
      <img src={render} alt="" className={`${PICTURE} mix-blend-difference`} />
    </div>
  );
}

function Brightness({ value, onChange }: { value: number; onChange: (value: number) => void }) {
  return (
    <label className="flex max-w-sm items-center gap-3 text-sm text-soft">
      Brightness
      <input
        type="range"
        min={1}
        max={12}
        step={0.5}
        value={value}
        onChange={(event) => onChange(Number(event.target.value))}
        className="h-6 flex-1 accent-sun"
      />
      <span className="w-10 text-right tabular-nums">{value}×</span>
    </label>
  );
}
