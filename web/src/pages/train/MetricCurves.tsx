// PSNR and loss over training time.

import { lazy, Suspense, useMemo, useState } from 'react';

import { formatDuration } from '../../lib/format';
import { metricSeries, type MetricPoint } from './metrics';

const Plot = lazy(() => import('./Plot'));

export function MetricCurves({ points }: { points: MetricPoint[] }) {
  return (
    <div className="grid gap-6 sm:grid-cols-2">
      <Curve points={points} name="psnr" title="PSNR on held-out views" unit=" dB" digits={2} />
      <Curve points={points} name="loss" title="Loss" unit="" digits={4} />
    </div>
  );
}

interface CurveProps {
  points: MetricPoint[];
  name: string;
  title: string;
  unit: string;
  digits: number;
}

function Curve({ points, name, title, unit, digits }: CurveProps) {
  const [times, values] = useMemo(() => metricSeries(points, name), [points, name]);
  const [at, point] = useState<{ time: number; value: number } | null>(null);
  const first = values[0];
  const last = values.at(-1);
  if (first === undefined || last === undefined || values.length < 2) return null;
  const write = (value: number) => `${value.toFixed(digits)}${unit}`;
  return (
    <figure className="min-w-0">
      <figcaption className="mb-1 flex justify-between gap-3 text-sm">
        <span className="truncate font-semibold">{title}</span>
        <span className="shrink-0 text-soft tabular-nums">
          {at ? `${write(at.value)} at ${formatDuration(at.time)}` : write(last)}
        </span>
      </figcaption>
      <div
        role="img"
        aria-label={`${title}: from ${write(first)} to ${write(last)} in ${formatDuration(times.at(-1) ?? 0)} of training`}
      >
        <Suspense fallback={<div className="h-45" />}>
          <Plot times={times} values={values} onPoint={point} />
        </Suspense>
      </div>
    </figure>
  );
}
