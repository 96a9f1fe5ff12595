// Previews and other lists of the server, fetched again when a job that changes them changes its state.

import { skipToken, useQuery } from '@tanstack/react-query';

import { http, type Job, told } from '../api/client';
import type { Capture, ShownRun } from '../api/previews';
import { useJobs } from './store';

/** Asked again whenever a job of these verbs has changed its state. */
function useAfter<T>(
  project: string,
  verbs: Job['asked']['verb'][],
  key: string[],
  look: (() => Promise<T>) | null,
  every?: number,
) {
  const jobs = useJobs(project).filter((job) => verbs.includes(job.asked.verb));
  const mark = jobs.map((job) => `${job.id}${job.state}${job.attempt}`).join();
  return useQuery({
    queryKey: [...key, project, mark],
    queryFn: look ?? skipToken,
    placeholderData: (before) => before,
    refetchInterval: every && jobs.some((job) => job.state === 'running') ? every : false,
  });
}

// The client's own types make lists of tuples, hence the `as`.
const of = (project: string) => ({ params: { path: { project } } });

export const useCapture = (project: string) =>
  useAfter(
    project,
    ['pose', 'sample', 'train'],
    ['capture'],
    () => told(http.GET('/api/v1/projects/{project}/capture', of(project))) as Promise<Capture | null>,
    4000,
  );

export const useRuns = (project: string) =>
  useAfter(
    project,
    ['train', 'evaluate'],
    ['runs'],
    () => told(http.GET('/api/v1/projects/{project}/runs', of(project))),
    3000,
  );

/** The newest that a run has to show; looked for every second while it trains. */
export const useShownRun = (project: string, run: string | undefined) =>
  useAfter(
    project,
    ['train'],
    ['shown', run ?? ''],
    run
      ? () =>
          told(
            http.GET('/api/v1/projects/{project}/runs/{run}/shown', { params: { path: { project, run } } }),
          ) as Promise<ShownRun | null>
      : null,
    1000,
  );

export const useEvaluation = (project: string, run: string | undefined) =>
  useAfter(
    project,
    ['evaluate'],
    ['evaluation', run ?? ''],
    run
      ? () =>
          told(
            http.GET('/api/v1/projects/{project}/runs/{run}/shown/evaluation', {
              params: { path: { project, run } },
            }),
          )
      : null,
  );

export const useUsage = (project: string) =>
  useAfter(project, ['sample', 'pose', 'train', 'evaluate', 'render', 'export'], ['usage'], () =>
    told(http.GET('/api/v1/projects/{project}/usage', of(project))),
  );

export const useMethods = () =>
  useQuery({ queryKey: ['methods'], queryFn: () => told(http.GET('/api/v1/methods')), staleTime: Infinity });

export const useFormats = () =>
  useQuery({ queryKey: ['formats'], queryFn: () => told(http.GET('/api/v1/formats')), staleTime: Infinity });
