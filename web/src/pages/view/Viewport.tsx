// The area that shows the scene: hands and keys go from here to the camera.

import { type KeyboardEvent, type ReactNode, useEffect, useRef } from 'react';

import type { Rig } from './cameraControls';

const CLICK = 5; // pixels that a click may slip

export function Viewport({
  rig,
  picking,
  onPick,
  onKey,
  className,
  children,
}: {
  rig: Rig;
  picking: boolean;
  onPick: (x: number, y: number) => void;
  onKey: (key: string) => boolean;
  className: string;
  children: ReactNode;
}) {
  const area = useRef<HTMLDivElement>(null);
  const pressed = useRef<{ x: number; y: number } | null>(null);

  useEffect(() => {
    const element = area.current;
    if (!element) return;
    rig.connect(element);
    const measure = () => rig.resize(element.clientWidth, element.clientHeight);
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(element);
    return () => {
      watch.disconnect();
      rig.disconnect();
    };
  }, [rig]);

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (picking && event.key === 'Enter') onPick(0, 0);
    else if (!rig.press(event.code, event.shiftKey) && !onKey(event.key.toLowerCase())) return;
    event.preventDefault();
  };

  return (
    // eslint-disable-next-line jsx-a11y/no-noninteractive-element-interactions -- an application takes keys
    <div
      ref={area}
      role="application"
      aria-label="The scene. Arrow keys turn the camera, plus and minus bring it nearer; R goes back to the start."
      // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- so that it has the keys
      tabIndex={0}
      onKeyDown={onKeyDown}
      onKeyUp={(event) => rig.release(event.code)}
      onBlur={() => rig.release()}
      onPointerDown={(event) => {
        pressed.current = { x: event.clientX, y: event.clientY };
        area.current?.focus({ preventScroll: true });
      }}
      onPointerUp={(event) => {
        const from = pressed.current;
        const at = area.current?.getBoundingClientRect();
        if (!picking || !from || !at || event.button !== 0) return;
        if (Math.hypot(event.clientX - from.x, event.clientY - from.y) > CLICK) return;
        onPick(
          (2 * (event.clientX - at.left)) / at.width - 1,
          1 - (2 * (event.clientY - at.top)) / at.height,
        );
      }}
      className={`touch-none overflow-hidden select-none focus-visible:-outline-offset-2 ${picking ? 'cursor-crosshair' : 'cursor-grab active:cursor-grabbing'} ${className}`}
    >
      {children}
    </div>
  );
}
