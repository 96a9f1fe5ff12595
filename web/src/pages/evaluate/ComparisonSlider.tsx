// Photo and render of a view, one over the other, with a movable line between them.

import { ChevronsLeftRight } from 'lucide-react';
import { type KeyboardEvent, type PointerEvent, useRef, useState } from 'react';

/** Addresses of the photo and the render of a view. */
export interface ImagePair {
  photo: string;
  render: string;
  name: string;
}

const STEP = 2; // of an arrow key
const LEAP = 10; // with Shift, or of Page Up and Page Down

export function ComparisonSlider({ photo, render, name }: ImagePair) {
  const [at, setAt] = useState(50);
  const box = useRef<HTMLDivElement>(null);
  const move = (percent: number) => setAt(Math.min(100, Math.max(0, percent)));
  const follow = (event: PointerEvent) => {
    const place = box.current?.getBoundingClientRect();
    if (place?.width) move((100 * (event.clientX - place.left)) / place.width);
  };
  const press = (event: KeyboardEvent) => {
    const to = moved(event, at);
    if (to === null) return;
    event.preventDefault();
    event.stopPropagation(); // elsewhere the arrow keys change the view
    move(to);
  };
  return (
    <div
      ref={box}
      className="relative size-full cursor-ew-resize touch-pan-y select-none"
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        follow(event);
      }}
      onPointerMove={(event) => event.buttons && follow(event)}
    >
      <img src={render} alt={`${name}, render`} draggable={false} className="size-full object-contain" />
      <img
        src={photo}
        alt={`${name}, ground truth`}
        draggable={false}
        className="absolute inset-0 size-full object-contain"
        style={{ clipPath: `inset(0 ${100 - at}% 0 0)` }}
      />
      <Label side="left-2">Photo</Label>
      <Label side="right-2">Render</Label>
      <div
        role="slider"
        tabIndex={0}
        aria-label="Line between photo and render"
        aria-orientation="horizontal"
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(at)}
        aria-valuetext={`${Math.round(at)} percent photo`}
        onKeyDown={press}
        className="absolute inset-y-0 -ml-5 flex w-10 items-center justify-center before:absolute before:inset-y-0 before:w-0.5 before:bg-white before:shadow-[0_0_4px_#000]"
        style={{ left: `${at}%` }}
      >
        <span className="relative flex size-9 items-center justify-center rounded-full bg-white text-black shadow-lg">
          <ChevronsLeftRight className="size-5" aria-hidden />
        </span>
      </div>
    </div>
  );
}

/** The new position after a key, in percent; null if the key has no effect. */
function moved({ key, shiftKey }: KeyboardEvent, at: number): number | null {
  const step = shiftKey ? LEAP : STEP;
  if (key === 'ArrowLeft' || key === 'ArrowDown') return at - step;
  if (key === 'ArrowRight' || key === 'ArrowUp') return at + step;
  if (key === 'PageDown') return at - LEAP;
  if (key === 'PageUp') return at + LEAP;
  if (key === 'Home') return 0;
  if (key === 'End') return 100;
  return null;
}

function Label({ side, children }: { side: string; children: string }) {
  return (
    <span
      className={`pointer-events-none absolute top-2 ${side} rounded-md bg-black/60 px-2 py-0.5 text-xs text-white`}
    >
      {children}
    </span>
  );
}
