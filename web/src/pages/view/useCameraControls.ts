// The camera of a run, in the hands of a page.

import { useEffect, useState, useSyncExternalStore } from 'react';

import type { ShownRun } from '../../api/previews';
import { fromHash, reachOf, toHash } from '../../geometry/camera';
import { Rig } from './cameraControls';

/** One camera for a run, however often newer snapshots of it come. It begins where the address says. */
export function useRig(run: string, shown: ShownRun): Rig | null {
  const [rig, setRig] = useState<Rig | null>(null);
  const { up, start, box } = shown;
  useEffect(() => {
    const made = new Rig(up, start, reachOf(box));
    const asked = fromHash(location.hash);
    if (asked) made.view = asked;
    setRig(made);
    return () => made.dispose();
    // eslint-disable-next-line react-hooks/exhaustive-deps -- a newer snapshot must not move the camera
  }, [run]);
  return rig;
}

/** Draws the component again whenever the camera has moved. */
export const useMoves = (rig: Rig): number => useSyncExternalStore(rig.listen, () => rig.version);

/** The address of this view, which is then also that of the page. */
export function viewAddress(rig: Rig, run: string): string {
  const address = new URL(location.href);
  address.searchParams.set('run', run);
  address.searchParams.delete('token'); // a link is for others, and the token is not
  address.hash = toHash(rig.view);
  history.replaceState(history.state, '', address);
  return address.href;
}
