// Held-out photos next to their current renders.

import { runFile, type RunPreview } from '../../api/previews';
import { formatDecibels } from '../../lib/format';
import { Crossfade } from './Crossfade';

export function HeldOutPreviews({
  project,
  run,
  shown,
}: {
  project: string;
  run: string;
  shown: RunPreview;
}) {
  if (!shown.views.length) return null;
  return (
    <section aria-label="Held-out views">
      <h3 className="text-sm font-semibold">Held-out views</h3>
      <p className="mb-3 text-xs text-soft">Photo on the left, render on the right.</p>
      <ul className="grid gap-4 lg:grid-cols-2">
        {shown.views.map((view) => (
          <li key={view.name}>
            <div className="grid grid-cols-2 gap-0.5 overflow-hidden rounded-lg bg-raised">
              <img
                src={runFile(project, run, view.photo)}
                alt={`${view.name}, ground truth`}
                className="aspect-4/3 w-full object-contain"
              />
              <Crossfade
                src={runFile(project, run, view.render)}
                alt={`${view.name}, render after ${shown.step} steps`}
                className="aspect-4/3"
              />
            </div>
            <p className="mt-1 flex justify-between gap-2 text-xs text-soft tabular-nums">
              <span className="truncate">{view.name}</span>
              <span>{formatDecibels(view.psnr)}</span>
            </p>
          </li>
        ))}
      </ul>
    </section>
  );
}
