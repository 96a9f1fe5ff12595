// The camera controls of a run as hooks.

import { useEffect, useState, useSyncExternalStore } from 'react';

import type { RunPreview } from '../../api/previews';
import { fromHash, boxDiagonal, toHash } from '../../geometry/camera';
import { CameraControls } from './cameraControls';

/** One camera for a run, kept across newer checkpoints. It starts at the view in the address. */
export function useCameraControls(run: string, preview: RunPreview): CameraControls | null {
  const [controls, setControls] = useState<CameraControls | null>(null);
  const { up, start, box } = preview;
  useEffect(() => {
    const newControls = new CameraControls(up, start, boxDiagonal(box));
    const view = fromHash(location.hash);
    if (view) newControls.view = view;
    setControls(newControls);
    return () => newControls.dispose();
    // eslint-disable-next-line react-hooks/exhaustive-deps -- a newer checkpoint must not move the camera
  }, [run]);
  return controls;
}

/** Renders the component again at every camera move. */
export const useCameraVersion = (controls: CameraControls): number =>
  useSyncExternalStore(controls.listen, () => controls.version);

/** Writes the view into the address of the page and returns the address. */
export function writeViewAddress(controls: CameraControls, run: string): string {
  const address = new URL(location.href);
  address.searchParams.set('run', run);
  address.searchParams.delete('token'); // never share the token
  address.hash = toHash(controls.view);
  history.replaceState(history.state, '', address);
  return address.href;
}
