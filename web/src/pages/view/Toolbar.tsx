// The buttons over the scene.

import { Camera, Footprints, Link2, Maximize, Minimize, Orbit, Plane, RotateCcw, Ruler } from 'lucide-react';
import { type MouseEvent, type ReactNode, type RefObject, useEffect, useState } from 'react';

import { IconButton } from '../../design/Button';
import { complain, say } from '../../design/Toasts';
import { NARROWEST, WIDEST } from '../../geometry/camera';
import { type Eyes, savePicture } from './viewerHandle';
import type { Hands, Rig } from './cameraControls';
import { useMoves, viewAddress } from './useCameraControls';

const HANDS: { hands: Hands; label: string; icon: ReactNode }[] = [
  { hands: 'orbit', label: 'Orbit: turn about the scene', icon: <Orbit className="size-4" /> },
  {
    hands: 'walk',
    label:
      'Walk: W A S D along the ground, E and Q to stand higher or lower, drag to look, wheel for the pace',
    icon: <Footprints className="size-4" />,
  },
  {
    hands: 'fly',
    label: 'Fly: W A S D to where you look, E and Q up and down, drag to look, wheel for the pace',
    icon: <Plane className="size-4" />,
  },
];

export function Toolbar({
  rig,
  run,
  eyes,
  background,
  screen,
  measuring,
  onMeasure,
  onReset,
}: {
  rig: Rig;
  run: string;
  eyes: Eyes | null;
  background: string;
  screen: RefObject<HTMLElement | null>;
  measuring: boolean | null; // null: cannot be measured
  onMeasure: () => void;
  onReset: () => void;
}) {
  useMoves(rig);
  const full = useFullScreen();
  const choose = (hands: Hands, event: MouseEvent) => {
    rig.mode = hands;
    // Whoever came by mouse wants to move now; whoever came by Tab is not thrown off the toolbar.
    if (event.detail > 0) screen.current?.querySelector<HTMLElement>('[role=application]')?.focus();
  };
  const copy = async () => {
    const address = viewAddress(rig, run);
    try {
      await navigator.clipboard.writeText(address); // there is no clipboard for pages that came by plain HTTP
      say('The link to this view is copied.');
    } catch {
      say('The address bar now holds the link to this view.');
    }
  };
  const save = () => eyes && savePicture(eyes, background, `view-${run}.png`).catch(complain);
  return (
    <div
      role="toolbar"
      aria-label="Camera"
      className="absolute inset-x-2 bottom-2 flex flex-wrap items-center justify-center gap-0.5 rounded-card border border-line bg-surface/95 p-1 shadow-lg sm:right-auto sm:left-1/2 sm:-translate-x-1/2 sm:flex-nowrap"
    >
      <div role="group" aria-label="How to move" className="flex gap-0.5">
        {HANDS.map(({ hands, label, icon }) => (
          <IconButton
            key={hands}
            label={label}
            active={rig.mode === hands}
            onClick={(event) => choose(hands, event)}
          >
            {icon}
          </IconButton>
        ))}
      </div>
      <IconButton label="Back to the start (R)" onClick={onReset}>
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
      <IconButton label="Save a picture" disabled={!eyes} onClick={() => void save()}>
        <Camera className="size-4" />
      </IconButton>
      <IconButton label="Copy a link to this view" onClick={() => void copy()}>
        <Link2 className="size-4" />
      </IconButton>
      <IconButton
        label={full ? 'Leave full screen (F)' : 'Full screen (F)'}
        onClick={() => toggleFullScreen(screen.current)}
      >
        {full ? <Minimize className="size-4" /> : <Maximize className="size-4" />}
      </IconButton>
      <FieldOfView rig={rig} />
      {rig.mode !== 'orbit' && (
        <span className="px-1 text-2xs whitespace-nowrap text-soft tabular-nums" role="status">
          pace {rig.fly.pace.toFixed(1)}
        </span>
      )}
    </div>
  );
}

function FieldOfView({ rig }: { rig: Rig }) {
  const fov = Math.round(rig.camera.fov);
  return (
    <label className="flex items-center gap-1.5 px-1.5 text-2xs text-soft">
      <span className="sr-only">Field of view in degrees</span>
      <input
        type="range"
        min={NARROWEST}
        max={WIDEST}
        value={Math.min(WIDEST, Math.max(NARROWEST, fov))}
        onChange={(event) => (rig.view = { ...rig.view, fov: Number(event.target.value) })}
        className="w-20 accent-sun"
        title="Field of view"
      />
      <span className="w-7 tabular-nums">{fov}°</span>
    </label>
  );
}

export function toggleFullScreen(element: HTMLElement | null): void {
  const done = document.fullscreenElement ? document.exitFullscreen() : element?.requestFullscreen();
  done?.catch(() => say('This browser does not allow full screen here.'));
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
