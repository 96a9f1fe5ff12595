// The order of evaluated views.

import type { EvaluationPreview } from '../../api/previews';

export type View = EvaluationPreview['views'][number];
export type Order = 'psnr' | 'ssim' | 'name';

/** A render equal to its photo has no PSNR (infinite). */
const sortKey = (value: number | null): number => value ?? Infinity;

/** Worst first; names in alphabetical order. */
export function sortViews(views: View[], by: Order, reversed: boolean): View[] {
  const compare = (a: View, b: View): number => {
    if (by === 'name') return a.name.localeCompare(b.name, 'en', { numeric: true });
    const [x, y] = [sortKey(a[by]), sortKey(b[by])];
    return x === y ? 0 : x - y;
  };
  const found = [...views].sort(compare);
  return reversed ? found.reverse() : found;
}
