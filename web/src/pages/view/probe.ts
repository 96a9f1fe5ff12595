// State of the viewer for browser tests.

interface Probe {
  splats: number; // drawn in the last frame
  frames: number; // drawn since the page was loaded
  loaded: string | null; // the scene on the screen
}

declare global {
  interface Window {
    __viewer?: Probe;
  }
}

export const probe: Probe = (window.__viewer ??= { splats: 0, frames: 0, loaded: null });
