// A training and the judging of what comes of it, into the queue.

import { ask, type Job, Refusal, sentence, type TrainJob } from '../api/client';
import { complain } from '../design/Toasts';

/** What holds out no photos cannot be judged by them. */
const judged = (asked: TrainJob): boolean => asked.holdout !== 0;

export async function startTraining(project: string, asked: TrainJob, needs: string[] = []): Promise<Job> {
  const job = await ask(project, asked, needs);
  if (judged(asked)) {
    await ask(project, { verb: 'evaluate', run: asked.run ?? job.id }, [job.id]).catch(complain);
  }
  return job;
}

/** Which field of the form was refused, and why; a field of null where it is none of them. */
export interface Refused {
  field: string | null;
  why: string;
}

export function refusedBy(error: unknown): Refused {
  if (!(error instanceof Refusal) || !error.field) return { field: null, why: sentence(error) };
  const why = error.detail.replace(/^\$?[\w.[\]]+: /, '');
  return {
    field: error.field.replace(/^train\./, '').replace(/\[\d+\]$/, ''),
    why: why.charAt(0).toUpperCase() + why.slice(1),
  };
}
