// uPlot in React, in a chunk of its own: loaded with the first curve.

import 'uplot/dist/uPlot.min.css';

import { useEffect, useRef } from 'react';
import UPlot from 'uplot';

export interface PlotProps {
  times: number[];
  values: number[];
  onPoint?: (at: { time: number; value: number } | null) => void;
}

const HEIGHT = 180;
const colour = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export default function Plot({ times, values, onPoint }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<UPlot | null>(null);
  const data = useRef<[number[], number[]]>([times, values]);
  const unwrap = useRef(onPoint);
  useEffect(() => {
    data.current = [times, values];
    unwrap.current = onPoint;
  });

  useEffect(() => {
    const box = place.current;
    if (!box) return;
    const draw = () => {
      plot.current?.destroy();
      const options = look(box.clientWidth, (i) => {
        const [x, y] = data.current;
        const time = i === null ? undefined : x[i];
        const value = i === null ? undefined : y[i];
        unwrap.current?.(time === undefined || value === undefined ? null : { time, value });
      });
      plot.current = new UPlot(options, data.current, box);
    };
    draw();
    const sizes = new ResizeObserver(() => plot.current?.setSize({ width: box.clientWidth, height: HEIGHT }));
    sizes.observe(box);
    const themes = new MutationObserver(draw); // the canvas keeps its colours, so draw again
    themes.observe(document.documentElement, { attributeFilter: ['data-theme'] });
    return () => {
      sizes.disconnect();
      themes.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);

  useEffect(() => plot.current?.setData([times, values]), [times, values]);
  return <div ref={place} className="min-w-0" />;
}

function look(width: number, onCursor: (index: number | null) => void): UPlot.Options {
  const axis: UPlot.Axis = {
    stroke: colour('--soft'),
    grid: { stroke: colour('--line'), width: 1 },
    ticks: { show: false },
    font: '11px Inter Variable, system-ui, sans-serif',
  };
  return {
    width,
    height: HEIGHT,
    padding: [8, 20, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { fill: colour('--sun') } },
    scales: { x: { time: false } },
    axes: [
      { ...axis, size: 28, values: (_, marks) => marks.map((mark) => `${mark} s`) },
      { ...axis, size: 46 },
    ],
    series: [{}, { stroke: colour('--sun-text'), width: 2, points: { show: false } }],
    hooks: { setCursor: [(plot) => onCursor(plot.cursor.idx ?? null)] },
  };
}
