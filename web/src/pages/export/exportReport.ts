// Reports of exports as text.

import type { Job, Schema } from '../../api/client';
import { formatCount } from '../../lib/format';
import { formatExtent } from '../../geometry/length';

export type Report = Omit<Schema['ExportReport'], 'kind' | 'path'>;

/** The report of a successful export job, else null. */
export function reportOf(job: Job | undefined): Report | null {
  if (job?.asked.verb !== 'export' || job.state !== 'succeeded') return null;
  const found = job.result;
  const whole = typeof found === 'object' && found !== null && 'holds' in found && 'bounds' in found;
  return whole ? (found as unknown as Report) : null; // older servers sent no report
}

/** "30,000 triangles with a texture, watertight, 2.1 × 1.4 × 0.9 m, verified" */
export function words(report: Report): string {
  const { holds, watertight, textured, read_back } = report;
  const said = [`${formatCount(report.count)} ${report.count === 1 ? holds.replace(/s$/, '') : holds}`];
  if (textured) said[0] += ' with a texture';
  if (watertight !== null && watertight !== undefined) said.push(watertight ? 'watertight' : 'not closed');
  if (holds !== 'gaussians') said.push(formatExtent(sizes(report), report.metres_per_unit ?? null)); // gaussians reach far out
  said.push(read_back ? 'verified' : 'not verified: this format is write-only');
  return said.join(', ');
}

const sizes = ({ bounds: [low, high] }: Report): number[] => high.map((end, axis) => end - (low[axis] ?? 0));

const UP: Record<string, string> = { '+x': 'x', '+y': 'y', '+z': 'z', '-x': '−x', '-y': '−y', '-z': '−z' };

/** The up axis of the file, as a sentence. */
export const describeUpAxis = ({ up }: Report): string => `Up axis: ${UP[up] ?? up}.`;

export const isUnscaled = (report: Report | null): boolean =>
  report !== null && (report.metres_per_unit ?? null) === null;
