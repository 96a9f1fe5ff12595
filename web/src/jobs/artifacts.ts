// The files that jobs made.

import { useQuery } from '@tanstack/react-query';

import { type Artifact, http, type Job, told } from '../api/client';
import { useJobs } from '../state/store';

const NONE: Artifact[] = [];

/** All of a project, newest first; looked for again whenever one of its jobs has changed its state. */
export function useArtifacts(project: string): Artifact[] {
  const mark = useJobs(project)
    .map((job) => `${job.id}${job.state}`)
    .join();
  const found = useQuery({
    queryKey: ['artifacts', project, mark],
    queryFn: async () => {
      const all = await told(
        http.GET('/api/v1/projects/{project}/artifacts', { params: { path: { project } } }),
      );
      return all.sort((a, b) => b.created - a.created);
    },
    placeholderData: (before) => before,
  });
  return found.data ?? NONE;
}

/** Those of one job, once it is done. */
export function useJobArtifacts(job: Job | undefined): Artifact[] {
  const found = useQuery({
    queryKey: ['artifacts of', job?.id, job?.state],
    queryFn: () =>
      told(http.GET('/api/v1/jobs/{job}/artifacts', { params: { path: { job: job?.id ?? '' } } })),
    enabled: job?.state === 'succeeded',
    staleTime: Infinity,
  });
  return found.data ?? NONE;
}
