// Previews and other lists of the server, fetched again when a job that changes them changes its state.

import { skipToken, useQuery } from '@tanstack/react-query';

import { http, type Job, unwrap } from '../api/client';
import type { Capture, RunPreview } from '../api/previews';
import { useJobs } from './store';

/** Fetches again when a job of these verbs changes its state, and every `every` ms while one runs. */
function useJobQuery<T>(
  project: string,
  verbs: Job['asked']['verb'][],
  key: string[],
  fetchData: (() => Promise<T>) | null,
  every?: number,
) {
  const jobs = useJobs(project).filter((job) => verbs.includes(job.asked.verb));
  const jobStates = jobs.map((job) => `${job.id}${job.state}${job.attempt}`).join();
  return useQuery({
    queryKey: [...key, project, jobStates],
    queryFn: fetchData ?? skipToken,
    placeholderData: (before) => before,
    refetchInterval: every && jobs.some((job) => job.state === 'running') ? every : false,
  });
}

// openapi-fetch turns tuples into lists, hence the `as`.
const projectPath = (project: string) => ({ params: { path: { project } } });

export const useCapture = (project: string) =>
  useJobQuery(
    project,
    ['pose', 'sample', 'train'],
    ['capture'],
    () =>
      unwrap(http.GET('/api/v1/projects/{project}/capture', projectPath(project))) as Promise<Capture | null>,
    4000,
  );

export const useRuns = (project: string) =>
  useJobQuery(
    project,
    ['train', 'evaluate'],
    ['runs'],
    () => unwrap(http.GET('/api/v1/projects/{project}/runs', projectPath(project))),
    3000,
  );

/** The newest preview of a run, fetched every second during training. */
export const useRunPreview = (project: string, run: string | undefined) =>
  useJobQuery(
    project,
    ['train'],
    ['shown', run ?? ''],
    run
      ? () =>
          unwrap(
            http.GET('/api/v1/projects/{project}/runs/{run}/shown', { params: { path: { project, run } } }),
          ) as Promise<RunPreview | null>
      : null,
    1000,
  );

export const useEvaluation = (project: string, run: string | undefined) =>
  useJobQuery(
    project,
    ['evaluate'],
    ['evaluation', run ?? ''],
    run
      ? () =>
          unwrap(
            http.GET('/api/v1/projects/{project}/runs/{run}/shown/evaluation', {
              params: { path: { project, run } },
            }),
          )
      : null,
  );

export const useUsage = (project: string) =>
  useJobQuery(project, ['sample', 'pose', 'train', 'evaluate', 'render', 'export'], ['usage'], () =>
    unwrap(http.GET('/api/v1/projects/{project}/usage', projectPath(project))),
  );

export const useMethods = () =>
  useQuery({
    queryKey: ['methods'],
    queryFn: () => unwrap(http.GET('/api/v1/methods')),
    staleTime: Infinity,
  });

export const useFormats = () =>
  useQuery({
    queryKey: ['formats'],
    queryFn: () => unwrap(http.GET('/api/v1/formats')),
    staleTime: Infinity,
  });
