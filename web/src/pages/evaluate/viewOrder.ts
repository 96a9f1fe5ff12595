// The views of an evaluation, in an order that a person chose.

import type { ShownEvaluation } from '../../api/previews';

export type View = ShownEvaluation['views'][number];
export type Order = 'psnr' | 'ssim' | 'name';

/** What is equal to its photo has no PSNR: nothing is better. */
const worth = (value: number | null): number => value ?? Infinity;

/** Worst first; names by the alphabet. */
export function ordered(views: View[], by: Order, reversed: boolean): View[] {
  const compare = (a: View, b: View): number => {
    if (by === 'name') return a.name.localeCompare(b.name, 'en', { numeric: true });
    const [x, y] = [worth(a[by]), worth(b[by])];
    return x === y ? 0 : x - y;
  };
  const found = [...views].sort(compare);
  return reversed ? found.reverse() : found;
}
