// What came of an export, in words.

import type { Job, Schema } from '../../api/client';
import { count } from '../../lib/format';
import { extent } from '../../geometry/length';

export type Report = Omit<Schema['ExportReport'], 'kind' | 'path'>;

/** The report of a job that wrote a file; null of any other. */
export function reportOf(job: Job | undefined): Report | null {
  if (job?.asked.verb !== 'export' || job.state !== 'succeeded') return null;
  const found = job.result;
  const whole = typeof found === 'object' && found !== null && 'holds' in found && 'bounds' in found;
  return whole ? (found as unknown as Report) : null; // servers before this one had none
}

/** "30,000 triangles with a texture, watertight, 2.1 × 1.4 × 0.9 m, checked by reading it back" */
export function words(report: Report): string {
  const { holds, watertight, textured, read_back } = report;
  const said = [`${count(report.count)} ${report.count === 1 ? holds.replace(/s$/, '') : holds}`];
  if (textured) said[0] += ' with a texture';
  if (watertight !== null && watertight !== undefined) said.push(watertight ? 'watertight' : 'not closed');
  if (holds !== 'gaussians') said.push(extent(sizes(report), report.metres_per_unit ?? null)); // theirs reach far out
  said.push(read_back ? 'checked by reading it back' : 'not checked, since only others read this form');
  return said.join(', ');
}

const sizes = ({ bounds: [low, high] }: Report): number[] => high.map((end, axis) => end - (low[axis] ?? 0));

const UP: Record<string, string> = { '+x': 'x', '+y': 'y', '+z': 'z', '-x': '−x', '-y': '−y', '-z': '−z' };

/** Which way is up in the file. */
export const upwards = ({ up }: Report): string => `Its ${UP[up] ?? up} axis points up.`;

export const sizeless = (report: Report | null): boolean =>
  report !== null && (report.metres_per_unit ?? null) === null;
