// What workers leave for the eye: cameras and photos of a capture, the newest state of a run, its evaluation.

import { skipToken, useQuery } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';

import { atWork, useJobs } from '../state/store';
import { API, http, type Job, type Schema, told } from './client';

export type Vector = [number, number, number];
export type Capture = Schema['CapturePreview'];
export type CaptureImage = Schema['PosedImage']; // the camera looks along +z, +y is down
export type RunSummary = Schema['RunSummary'];
export type ShownRun = Schema['RunPreview'];
export type ShownEvaluation = Schema['EvaluationPreview'];
export type JobEvent =
  | Schema['Metrics']
  | Schema['Note']
  | Schema['ArtifactWritten']
  | Schema['CheckpointWritten']
  | Schema['Progress']
  | Schema['ExportReport'];

export const captureFile = (project: string, name: string) => `${API}/projects/${project}/capture/${name}`;
export const runFile = (project: string, run: string, name: string) =>
  `${API}/projects/${project}/runs/${run}/shown/${name}`;
export const projectFile = (project: string, name: string) =>
  `${API}/projects/${project}/files/${name.split('/').map(encodeURIComponent).join('/')}`;
export const artifactFile = (id: string) => `${API}/artifacts/${id}`;

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

const PAGE = 5000; // events in one answer
const EVERY = 700; // ms between looks at what happened

/** All that happened in a job, oldest first, growing while it runs. */
export function useJobEvents(job: Job | undefined): JobEvent[] {
  const [events, setEvents] = useState<JobEvent[]>([]);
  const known = useRef({ id: '', count: 0 });
  const id = job?.id;
  const working = job !== undefined && atWork(job);

  useEffect(() => {
    if (!id) return;
    let stopped = false;
    let timer: ReturnType<typeof setTimeout>;
    if (known.current.id !== id) {
      known.current = { id, count: 0 };
      setEvents([]);
    }
    const more = async () => {
      let full = false;
      try {
        const query = { after: known.current.count, limit: PAGE };
        const found = (await told(
          http.GET('/api/v1/jobs/{job}/events', { params: { path: { job: id }, query } }),
        )) as JobEvent[]; // tuples lose their lengths on the way
        if (stopped) return;
        full = found.length === PAGE;
        if (found.length) {
          known.current.count += found.length;
          setEvents((before) => [...before, ...found]);
        }
      } catch {
        // The server is away; the socket says so, and this goes on when it is back.
      }
      if (!stopped && full) void more();
      else if (!stopped && working) timer = setTimeout(() => void more(), EVERY);
    };
    void more();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [id, working]);
  return events;
}
