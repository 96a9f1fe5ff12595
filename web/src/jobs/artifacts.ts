// The artifacts of jobs.

import { useQuery } from '@tanstack/react-query';

import { type Artifact, http, type Job, unwrap } from '../api/client';
import { useJobs } from '../state/store';

const NO_ARTIFACTS: Artifact[] = [];

/** All artifacts of a project, newest first; fetched again when a job changes its state. */
export function useArtifacts(project: string): Artifact[] {
  const jobStates = useJobs(project)
    .map((job) => `${job.id}${job.state}`)
    .join();
  const query = useQuery({
    queryKey: ['artifacts', project, jobStates],
    queryFn: async () => {
      const all = await unwrap(
        http.GET('/api/v1/projects/{project}/artifacts', { params: { path: { project } } }),
      );
      return all.sort((a, b) => b.created - a.created);
    },
    placeholderData: (before) => before,
  });
  return query.data ?? NO_ARTIFACTS;
}

/** The artifacts of a job, once it has succeeded. */
export function useJobArtifacts(job: Job | undefined): Artifact[] {
  const query = useQuery({
    queryKey: ['artifacts of', job?.id, job?.state],
    queryFn: () =>
      unwrap(http.GET('/api/v1/jobs/{job}/artifacts', { params: { path: { job: job?.id ?? '' } } })),
    enabled: job?.state === 'succeeded',
    staleTime: Infinity,
  });
  return query.data ?? NO_ARTIFACTS;
}
