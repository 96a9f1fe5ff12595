// Labels and status texts of jobs.

import type { Job } from '../api/client';

const VERBS: Record<Job['asked']['verb'], [running: string, jobName: string]> = {
  sample: ['Rendering the sample photos', 'Sample photos'],
  pose: ['Estimating camera poses', 'Camera poses'],
  train: ['Training', 'Training'],
  evaluate: ['Evaluating on held-out views', 'Evaluation'],
  render: ['Rendering', 'Video'],
  export: ['Writing the file', 'Export'],
  scale: ['Setting the scale', 'Scale'],
  compare: ['Comparing runs', 'Comparison'],
  check: ['Checking', 'Check'],
};

export const jobName = (job: Job): string => VERBS[job.asked.verb][1];

export function statusText(job: Job): string {
  const [running, name] = VERBS[job.asked.verb];
  if (job.state === 'failed') return `${name} failed: ${job.error ?? 'unknown reason'}`;
  if (job.state === 'cancelled') return `${name}: cancelled`;
  if (job.state === 'succeeded') return `${name}: done`;
  if (job.cancelling) return `${name}: stopping`;
  if (job.paused) return `${name}: paused`;
  if (job.state === 'queued') return `${name}: waiting`;
  if (job.asked.verb === 'train' && job.stage !== 'train') return 'Preparing the photos';
  if (job.asked.verb === 'export') return BEFORE_WRITING[job.stage ?? firstStage(job.asked)] ?? running;
  return running;
}

/** The first stage, before the job reports one. */
const firstStage = ({ kind }: { kind?: string | null }): string =>
  kind === 'mesh' || kind === 'points' || kind === 'voxels' ? 'read' : 'write';

/** Status texts of an export before the file is written, by stage. */
const BEFORE_WRITING: Record<string, string> = {
  read: 'Reading the scene',
  look: 'Rendering depth from all around',
  fuse: 'Fusing depth into a surface',
  simplify: 'Simplifying the mesh',
  paint: 'Baking the texture',
  thin: 'Thinning the points',
  check: 'Reading the file back',
};
