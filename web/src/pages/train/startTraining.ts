// Submits a training and its evaluation.

import { submitJob, type Job, type TrainJob } from '../../api/client';
import { showError } from '../../design/Toasts';

/** Runs without held-out photos cannot be evaluated. */
const needsEvaluation = (request: TrainJob): boolean => request.holdout !== 0;

export async function startTraining(project: string, request: TrainJob, needs: string[] = []): Promise<Job> {
  const job = await submitJob(project, request, needs);
  if (needsEvaluation(request)) {
    await submitJob(project, { verb: 'evaluate', run: request.run ?? job.id }, [job.id]).catch(showError);
  }
  return job;
}
