// Two pictures of the same view, one over the other, with a line between them that can be moved.

import { ChevronsLeftRight } from 'lucide-react';
import { type KeyboardEvent, type PointerEvent, useRef, useState } from 'react';

/** Addresses of two images of the same view. */
export interface ImagePair {
  photo: string;
  render: string;
  name: string;
}

const STEP = 2; // percent, of an arrow key
const LEAP = 10; // with Shift, or by Page Up and Page Down

export function Slider({ photo, render, name }: ImagePair) {
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
    event.stopPropagation(); // the arrow keys leaf through the views elsewhere
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
      <img src={render} alt={`${name}, as learned`} draggable={false} className="size-full object-contain" />
      <img
        src={photo}
        alt={`${name}, as taken`}
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

/** Where a key moves the line; null where it does not. */
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
