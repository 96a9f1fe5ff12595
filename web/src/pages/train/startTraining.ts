// Submits a training and its evaluation.

import { submitJob, type Job, type TrainJob } from '../../api/client';
import { showError } from '../../design/Toasts';

/** Evaluation needs held-out photos. */
const judged = (asked: TrainJob): boolean => asked.holdout !== 0;

export async function startTraining(project: string, asked: TrainJob, needs: string[] = []): Promise<Job> {
  const job = await submitJob(project, asked, needs);
  if (judged(asked)) {
    await submitJob(project, { verb: 'evaluate', run: asked.run ?? job.id }, [job.id]).catch(showError);
  }
  return job;
}
