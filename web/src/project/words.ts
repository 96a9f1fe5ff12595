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
  return running;
}
