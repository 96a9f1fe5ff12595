// A training and the judging of what comes of it, into the queue.

import { ask, type Job, type TrainJob } from '../../api/client';
import { complain } from '../../design/Toasts';

/** What holds out no photos cannot be judged by them. */
const judged = (asked: TrainJob): boolean => asked.holdout !== 0;

export async function startTraining(project: string, asked: TrainJob, needs: string[] = []): Promise<Job> {
  const job = await ask(project, asked, needs);
  if (judged(asked)) {
    await ask(project, { verb: 'evaluate', run: asked.run ?? job.id }, [job.id]).catch(complain);
  }
  return job;
}
