// Metres per unit of a project's scene, in this browser's storage.

const KEY = (project: string) => `lumigraph.metres.${project}`;

/** Metres per unit of a project's scene; null if unknown. */
export function readScale(project: string): number | null {
  const kept = Number(localStorage.getItem(KEY(project)));
  return Number.isFinite(kept) && kept > 0 ? kept : null;
}

export function saveScale(project: string, metres: number | null): void {
  if (metres === null) localStorage.removeItem(KEY(project));
  else localStorage.setItem(KEY(project), String(metres));
}
