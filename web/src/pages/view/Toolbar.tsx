// The toolbar over the scene.

import { Camera, Footprints, Link2, Maximize, Minimize, Orbit, Plane, RotateCcw, Ruler } from 'lucide-react';
import { type MouseEvent, type ReactNode, type RefObject, useEffect, useState } from 'react';

import { IconButton } from '../../design/Button';
import { showError, showMessage } from '../../design/Toasts';
import { MIN_FOV_DEG, MAX_FOV_DEG } from '../../geometry/camera';
import { type ViewerHandle, saveImage } from './viewerHandle';
import type { NavigationMode, CameraControls } from './cameraControls';
import { useCameraVersion, writeViewAddress } from './useCameraControls';

const NAVIGATION_MODES: { hands: NavigationMode; label: string; icon: ReactNode }[] = [
  { hands: 'orbit', label: 'Orbit: drag to turn, wheel to zoom', icon: <Orbit className="size-4" /> },
  {
    hands: 'walk',
    label: 'Walk: W A S D along the ground, E and Q for the eye height, drag to look, wheel for the speed',
    icon: <Footprints className="size-4" />,
  },
  {
    hands: 'fly',
    label: 'Fly: W A S D, E and Q up and down, drag to look, wheel for the speed',
    icon: <Plane className="size-4" />,
  },
];

export function Toolbar({
  controls,
  run,
  handle,
  background,
  screen,
  measuring,
  onMeasure,
  onReset,
}: {
  controls: CameraControls;
  run: string;
  handle: ViewerHandle | null;
  background: string;
  screen: RefObject<HTMLElement | null>;
  measuring: boolean | null; // null: not available
  onMeasure: () => void;
  onReset: () => void;
}) {
  useCameraVersion(controls);
  const full = useFullScreen();
  const choose = (hands: NavigationMode, event: MouseEvent) => {
    controls.mode = hands;
    // A mouse click focuses the scene, for the movement keys; keyboard users stay on the toolbar.
    if (event.detail > 0) screen.current?.querySelector<HTMLElement>('[role=application]')?.focus();
  };
  const copy = async () => {
    const address = writeViewAddress(controls, run);
    try {
      await navigator.clipboard.writeText(address); // not available over plain HTTP
      showMessage('Link copied.');
    } catch {
      showMessage('The link is in the address bar.');
    }
  };
  const save = () => handle && saveImage(handle, background, `view-${run}.png`).catch(showError);
  return (
    <div
      role="toolbar"
      aria-label="Camera"
      className="absolute inset-x-2 bottom-2 flex flex-wrap items-center justify-center gap-0.5 rounded-card border border-line bg-surface/95 p-1 shadow-lg sm:right-auto sm:left-1/2 sm:-translate-x-1/2 sm:flex-nowrap"
    >
      <div role="group" aria-label="Navigation mode" className="flex gap-0.5">
        {NAVIGATION_MODES.map(({ hands, label, icon }) => (
          <IconButton
            key={hands}
            label={label}
            active={controls.mode === hands}
            onClick={(event) => choose(hands, event)}
          >
            {icon}
          </IconButton>
        ))}
      </div>
      <IconButton label="Reset view (R)" onClick={onReset}>
        <RotateCcw className="size-4" />
      </IconButton>
      <IconButton
        label="Measure"
        active={measuring === true}
        disabled={measuring === null}
        onClick={onMeasure}
      >
        <Ruler className="size-4" />
      </IconButton>
      <IconButton label="Save image" disabled={!handle} onClick={() => void save()}>
        <Camera className="size-4" />
      </IconButton>
      <IconButton label="Copy link to this view" onClick={() => void copy()}>
        <Link2 className="size-4" />
      </IconButton>
      <IconButton
        label={full ? 'Exit full screen (F)' : 'Full screen (F)'}
        onClick={() => toggleFullScreen(screen.current)}
      >
        {full ? <Minimize className="size-4" /> : <Maximize className="size-4" />}
      </IconButton>
      <FieldOfView controls={controls} />
      {controls.mode !== 'orbit' && (
        <span className="px-1 text-2xs whitespace-nowrap text-soft tabular-nums" role="status">
          speed {controls.fly.pace.toFixed(1)}
        </span>
      )}
    </div>
  );
}

function FieldOfView({ controls }: { controls: CameraControls }) {
  const fov = Math.round(controls.camera.fov);
  return (
    <label className="flex items-center gap-1.5 px-1.5 text-2xs text-soft">
      <span className="sr-only">Field of view in degrees</span>
      <input
        type="range"
        min={MIN_FOV_DEG}
        max={MAX_FOV_DEG}
        value={Math.min(MAX_FOV_DEG, Math.max(MIN_FOV_DEG, fov))}
        onChange={(event) => (controls.view = { ...controls.view, fov: Number(event.target.value) })}
        className="w-20 accent-sun"
        title="Field of view"
      />
      <span className="w-7 tabular-nums">{fov}°</span>
    </label>
  );
}

export function toggleFullScreen(element: HTMLElement | null): void {
  const done = document.fullscreenElement ? document.exitFullscreen() : element?.requestFullscreen();
  done?.catch(() => showMessage('This browser does not allow full screen.'));
}

function useFullScreen(): boolean {
  const [full, setFull] = useState(false);
  useEffect(() => {
    const look = () => setFull(document.fullscreenElement !== null);
    document.addEventListener('fullscreenchange', look);
    return () => document.removeEventListener('fullscreenchange', look);
  }, []);
  return full;
}
