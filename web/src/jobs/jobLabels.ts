// Jobs in words.

import type { Job } from '../api/client';

const VERBS: Record<Job['asked']['verb'], [running: string, noun: string]> = {
  sample: ['Making sample photos', 'Sample photos'],
  pose: ['Finding where the photos were taken', 'Camera poses'],
  train: ['Training', 'Training'],
  evaluate: ['Comparing with photos it never saw', 'Evaluation'],
  render: ['Rendering', 'Film'],
  export: ['Writing the file', 'Export'],
  scale: ['Setting the scale', 'Scale'],
  compare: ['Comparing runs', 'Comparison'],
  check: ['Checking', 'Check'],
};

export const noun = (job: Job): string => VERBS[job.asked.verb][1];

export function doing(job: Job): string {
  const [running, name] = VERBS[job.asked.verb];
  if (job.state === 'failed') return `${name} failed: ${job.error ?? 'nobody knows why'}`;
  if (job.state === 'cancelled') return `${name}: cancelled`;
  if (job.state === 'succeeded') return `${name}: done`;
  if (job.cancelling) return `${name}: stopping`;
  if (job.paused) return `${name}: paused`;
  if (job.state === 'queued') return `${name}: waiting`;
  if (job.asked.verb === 'train' && job.stage !== 'train') return 'Getting the photos ready';
  if (job.asked.verb === 'export') return BEFORE_WRITING[job.stage ?? first(job.asked)] ?? running;
  return running;
}

/** The stage that nothing was told of yet. */
const first = ({ kind }: { kind?: string | null }): string =>
  kind === 'mesh' || kind === 'points' || kind === 'voxels' ? 'read' : 'write';

/** What is done for a mesh or for points before they can be written, by the stages that the job tells of. */
const BEFORE_WRITING: Record<string, string> = {
  read: 'Reading the scene',
  look: 'Looking at the scene from all around',
  fuse: 'Joining what was seen to a surface',
  simplify: 'Making it of fewer triangles',
  paint: 'Painting its texture',
  thin: 'Spreading the points evenly',
  check: 'Reading the file back',
};
