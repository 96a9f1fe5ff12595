// Camera paths of all runs in localStorage, which holds about five million characters.
//
// Key frames are small and stay. The thumbnails of all runs are in one item of bounded length: the path edited last is
// at the end, and the oldest thumbnails are dropped from the front.

import type { KeyFrame } from '../../geometry/cameraPath';

const PATH = (run: string) => `lumigraph.path.${run}`;
const PICTURES = 'lumigraph.path-pictures';
export const MAX_STORED_CHARACTERS = 600_000; // of all thumbnails: more than a hundred
export const MAX_THUMBNAIL_CHARACTERS = 12_000;

interface Kept {
  run: string;
  id: string; // of the key frame
  picture: string;
}

export function readPath(run: string): KeyFrame[] {
  const pictures = new Map(readPictures().map((one) => [one.id, one.picture]));
  return list<KeyFrame>(PATH(run))
    .filter((key) => key.view?.position?.length === 3)
    .map((key) => ({ ...key, picture: pictures.get(key.id) ?? null }));
}

/** Saves a path. If storage is full, thumbnails are dropped first; then the path lasts only until reload. */
export function savePath(run: string, keys: KeyFrame[]): void {
  const plain = keys.map(({ id, view, seconds }) => ({ id, view, seconds }));
  if (!write(PATH(run), plain)) {
    write(PICTURES, []);
    write(PATH(run), plain);
  }
  const mine = keys.flatMap(({ id, picture }) => (picture ? [{ run, id, picture }] : []));
  write(PICTURES, bounded([...readPictures().filter((one) => one.run !== run), ...mine]));
}

function bounded(all: Kept[]): Kept[] {
  let left = MAX_STORED_CHARACTERS;
  return all
    .filter((one) => one.picture.length <= MAX_THUMBNAIL_CHARACTERS)
    .reverse()
    .filter((one) => (left -= JSON.stringify(one).length + 1) > 0)
    .reverse();
}

const readPictures = (): Kept[] =>
  list<Kept>(PICTURES).filter((one) => `${one.picture}`.startsWith('data:image/jpeg;base64,'));

function list<T>(key: string): T[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(key) ?? '[]');
    return Array.isArray(kept) ? (kept as T[]).filter((one) => typeof one === 'object' && one !== null) : [];
  } catch {
    return [];
  }
}

/** Writes an item. Returns false if storage is full or forbidden. */
function write(key: string, what: unknown[]): boolean {
  try {
    localStorage.setItem(key, JSON.stringify(what));
    return true;
  } catch {
    return false;
  }
}
