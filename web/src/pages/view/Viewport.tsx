// The area of the scene: passes pointer and key events to the camera controls.

import { type KeyboardEvent, type ReactNode, useEffect, useRef } from 'react';

import type { CameraControls } from './cameraControls';

const CLICK_TOLERANCE_PX = 5;

export function Viewport({
  controls,
  picking,
  onPick,
  onKey,
  className,
  children,
}: {
  controls: CameraControls;
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
    controls.connect(element);
    const measure = () => controls.resize(element.clientWidth, element.clientHeight);
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(element);
    return () => {
      watch.disconnect();
      controls.disconnect();
    };
  }, [controls]);

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (picking && event.key === 'Enter') onPick(0, 0);
    else if (!controls.press(event.code, event.shiftKey) && !onKey(event.key.toLowerCase())) return;
    event.preventDefault();
  };

  return (
    // eslint-disable-next-line jsx-a11y/no-noninteractive-element-interactions -- role=application handles keys
    <div
      ref={area}
      role="application"
      aria-label="Scene. Arrow keys turn the camera, plus and minus zoom, R resets the view."
      // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- receives key events
      tabIndex={0}
      onKeyDown={onKeyDown}
      onKeyUp={(event) => controls.release(event.code)}
      onBlur={() => controls.release()}
      onPointerDown={(event) => {
        pressed.current = { x: event.clientX, y: event.clientY };
        area.current?.focus({ preventScroll: true });
      }}
      onPointerUp={(event) => {
        const from = pressed.current;
        const at = area.current?.getBoundingClientRect();
        if (!picking || !from || !at || event.button !== 0) return;
        if (Math.hypot(event.clientX - from.x, event.clientY - from.y) > CLICK_TOLERANCE_PX) return;
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
