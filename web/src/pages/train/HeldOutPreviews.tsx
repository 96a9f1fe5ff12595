// Photos that the training never sees, beside what it makes of them right now.

import { runFile, type ShownRun } from '../../api/previews';
import { decibel } from '../../lib/format';
import { Crossfade } from './Crossfade';

export function LiveViews({ project, run, shown }: { project: string; run: string; shown: ShownRun }) {
  if (!shown.views.length) return null;
  return (
    <section aria-label="Photos it never saw">
      <h3 className="text-sm font-semibold">Photos it never saw</h3>
      <p className="mb-3 text-xs text-soft">The photo to the left, what was learned to the right.</p>
      <ul className="grid gap-4 lg:grid-cols-2">
        {shown.views.map((view) => (
          <li key={view.name}>
            <div className="grid grid-cols-2 gap-0.5 overflow-hidden rounded-lg bg-raised">
              <img
                src={runFile(project, run, view.photo)}
                alt={`${view.name}, as taken`}
                className="aspect-4/3 w-full object-contain"
              />
              <Crossfade
                src={runFile(project, run, view.render)}
                alt={`${view.name}, as learned after ${shown.step} steps`}
                className="aspect-4/3"
              />
            </div>
            <p className="mt-1 flex justify-between gap-2 text-xs text-soft tabular-nums">
              <span className="truncate">{view.name}</span>
              <span>{decibel(view.psnr)}</span>
            </p>
          </li>
        ))}
      </ul>
    </section>
  );
}
