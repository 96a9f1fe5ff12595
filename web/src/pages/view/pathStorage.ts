// The paths of all runs in this browser's storage, which has room for some five million characters.
//
// Key frames are small and stay. Their pictures lie beside them, those of all runs in one item of a bounded length: the
// path that was worked on last comes last, and what is too much goes from the front.

import type { KeyFrame } from '../../geometry/cameraPath';

const PATH = (run: string) => `lumigraph.path.${run}`;
const PICTURES = 'lumigraph.path-pictures';
export const MOST_CHARACTERS = 600_000; // of all pictures: a hundred and more
export const LARGEST_PICTURE = 12_000;

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

/** Where storage is full or forbidden, first the pictures and then the path live as long as the page does. */
export function keepPath(run: string, keys: KeyFrame[]): void {
  const plain = keys.map(({ id, view, seconds }) => ({ id, view, seconds }));
  if (!write(PATH(run), plain)) {
    write(PICTURES, []);
    write(PATH(run), plain);
  }
  const mine = keys.flatMap(({ id, picture }) => (picture ? [{ run, id, picture }] : []));
  write(PICTURES, bounded([...readPictures().filter((one) => one.run !== run), ...mine]));
}

function bounded(all: Kept[]): Kept[] {
  let left = MOST_CHARACTERS;
  return all
    .filter((one) => one.picture.length <= LARGEST_PICTURE)
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

/** Whether there was room for it. */
function write(key: string, what: unknown[]): boolean {
  try {
    localStorage.setItem(key, JSON.stringify(what));
    return true;
  } catch {
    return false;
  }
}
