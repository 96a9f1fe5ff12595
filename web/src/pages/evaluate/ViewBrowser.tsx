// The held-out views of a run: a list and one large view. The arrow keys change the view.

import { ChevronLeft, ChevronRight } from 'lucide-react';
import { useEffect, useMemo, useState } from 'react';

import { runFile } from '../../api/previews';
import { IconButton } from '../../design/Button';
import { formatDecibels } from '../../lib/format';
import { ImageComparison } from './ImageComparison';
import { ViewList } from './ViewList';
import { type Order, sortViews, type View } from './viewOrder';

export function ViewBrowser({ project, run, views }: { project: string; run: string; views: View[] }) {
  const [{ by, reversed }, order] = useState<{ by: Order; reversed: boolean }>({
    by: 'psnr',
    reversed: false,
  });
  const [name, choose] = useState<string>();
  const sorted = useMemo(() => sortViews(views, by, reversed), [views, by, reversed]);
  const index = Math.max(
    0,
    sorted.findIndex((view) => view.name === name),
  );
  const selected = sorted[index];
  const step = (by: number) => {
    const next = sorted[index + by];
    if (next) choose(next.name);
  };
  useArrows(step);
  if (!selected) return null;
  return (
    <div className="grid gap-4 lg:grid-cols-[15rem_minmax(0,1fr)] lg:gap-6">
      <div className="min-w-0 max-lg:order-2">
        <ViewList
          project={project}
          run={run}
          views={sorted}
          selected={selected}
          by={by}
          reversed={reversed}
          onChoose={(view) => choose(view.name)}
          onOrder={(now) => order({ by: now, reversed: now === by && !reversed })}
        />
      </div>
      <section aria-label={`View ${selected.name}`} className="flex min-w-0 flex-col gap-3">
        <div className="flex items-center gap-2">
          <p className="min-w-0 flex-1 truncate text-sm">
            <span className="font-semibold">{selected.name}</span>
            <span className="text-soft tabular-nums">
              {` · ${formatDecibels(selected.psnr)}`}
              {selected.ssim !== null && ` · SSIM ${selected.ssim.toFixed(3)}`}
            </span>
          </p>
          <IconButton label="Previous view" disabled={index === 0} onClick={() => step(-1)}>
            <ChevronLeft className="size-5" />
          </IconButton>
          <span className="text-xs text-soft tabular-nums">
            {index + 1} of {sorted.length}
          </span>
          <IconButton label="Next view" disabled={index === sorted.length - 1} onClick={() => step(1)}>
            <ChevronRight className="size-5" />
          </IconButton>
        </div>
        <ImageComparison
          name={selected.name}
          photo={runFile(project, run, selected.photo)}
          render={runFile(project, run, selected.render)}
        />
      </section>
    </div>
  );
}

/** Left and right arrow keys, unless a control uses them. */
function useArrows(step: (by: number) => void) {
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
      if (
        event.target instanceof Element &&
        event.target.closest('input, select, textarea, [role=slider], [role=tab]')
      )
        return;
      if (event.key === 'ArrowLeft') step(-1);
      if (event.key === 'ArrowRight') step(1);
    };
    window.addEventListener('keydown', press);
    return () => window.removeEventListener('keydown', press);
  }, [step]);
}
