// The training jobs of a run, and their metrics.

import { useQueries } from '@tanstack/react-query';
import { useMemo } from 'react';

import { http, type Job, unwrap, type TrainJob } from '../../api/client';
import type { JobEvent } from '../../api/previews';
import { useJobEvents } from '../../state/jobEvents';
import { useJobs } from '../../state/store';
import { type MetricPoint, pointsOf } from './metrics';

export type TrainingJob = Job & { asked: TrainJob };

export const isTraining = (job: Job): job is TrainingJob => job.asked.verb === 'train';
export const runOf = (job: TrainingJob): string => job.asked.run ?? job.id;

/** The training jobs of a run, oldest first. */
export function useTrainingJobs(project: string, run: string | undefined): TrainingJob[] {
  const jobs = useJobs(project);
  return useMemo(
    () =>
      jobs
        .filter(isTraining)
        .filter((job) => runOf(job) === run)
        .reverse(),
    [jobs, run],
  );
}

/** Metrics of all training jobs of a run. */
export function useMetricPoints(trainings: TrainingJob[]): MetricPoint[] {
  const before = useQueries({
    queries: trainings.slice(0, -1).map((job) => ({
      queryKey: ['events', job.id, job.state],
      queryFn: () =>
        unwrap(
          http.GET('/api/v1/jobs/{job}/events', {
            params: { path: { job: job.id }, query: { limit: 10_000 } },
          }),
        ) as Promise<JobEvent[]>,
      staleTime: Infinity,
    })),
    combine: (found) => found.flatMap((one) => one.data ?? []),
  });
  const now = useJobEvents(trainings.at(-1));
  return useMemo(() => pointsOf([...before, ...now]), [before, now]);
}
