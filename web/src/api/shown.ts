// What workers leave for the eye: cameras and photos of a capture, the newest state of a run, its evaluation.

import { useQuery } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';

import { atWork, useJobs } from '../state/store';
import { API, http, type Job, Refusal, type Schema, told } from './client';

export type Vector = [number, number, number];

export interface CaptureImage {
  name: string;
  thumb: string; // of `captureFile`
  width: number;
  height: number;
  focal: [number, number];
  centre: [number, number];
  world_from_cam: number[][]; // three or four rows of four; the camera looks along +z, +y is down
  held_out: boolean;
}

export interface Capture {
  job: string | null;
  box: [Vector, Vector];
  up: Vector;
  images: CaptureImage[];
  rejected: { name: string; reason: string }[];
  points: string | null; // a PLY, of `captureFile`
}

export interface RunSummary {
  id: string; // that of the job which made it
  method: string;
  settings: Record<string, unknown>;
  seconds: number | null; // the budget
  steps: number | null;
  step: number;
  trained_seconds: number;
  finished: boolean;
  count: number | null; // gaussians
  psnr: number | null;
  ssim: number | null;
  created: number;
}

export interface ShownRun {
  method: string;
  step: number;
  seconds: number;
  finished: boolean;
  count: number | null;
  scene: string | null; // an SPZ, of `runFile`; null for methods without gaussians
  bytes: number | null;
  box: [Vector, Vector];
  up: Vector;
  views: { name: string; photo: string; render: string; psnr: number | null }[]; // held out, of `runFile`
  start: { position: Vector; look_at: Vector; up: Vector; fov: number }; // vertical, degrees
}

export interface ShownEvaluation {
  psnr: number | null;
  ssim: number | null;
  views: { name: string; psnr: number | null; ssim: number | null; photo: string; render: string }[];
}

export type JobEvent =
  Schema['Metrics'] | Schema['Note'] | Schema['Made'] | Schema['Snapshot'] | Schema['Progress'];

export const captureFile = (project: string, name: string) => `${API}/projects/${project}/capture/${name}`;
export const runFile = (project: string, run: string, name: string) =>
  `${API}/projects/${project}/runs/${run}/shown/${name}`;
export const projectFile = (project: string, name: string) =>
  `${API}/projects/${project}/files/${name.split('/').map(encodeURIComponent).join('/')}`;
export const artifactFile = (id: string) => `${API}/artifacts/${id}`;

/** JSON of a path below the API; null where there is nothing yet (404). */
async function look<T>(path: string): Promise<T | null> {
  const answer = await fetch(`${API}${path}`);
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Refusal(answer.status, answer.statusText, 'This cannot be shown right now.');
  return (await answer.json()) as T;
}

/** Asked again whenever a job of these verbs has changed its state. */
function useAfter<T>(
  project: string,
  verbs: Job['asked']['verb'][],
  key: string[],
  path: string | null,
  every?: number,
) {
  const jobs = useJobs(project).filter((job) => verbs.includes(job.asked.verb));
  const mark = jobs.map((job) => `${job.id}${job.state}${job.attempt}`).join();
  return useQuery({
    queryKey: [...key, project, mark],
    queryFn: () => look<T>(path ?? ''),
    enabled: path !== null,
    placeholderData: (before) => before,
    refetchInterval: every && jobs.some((job) => job.state === 'running') ? every : false,
  });
}

export const useCapture = (project: string) =>
  useAfter<Capture>(project, ['pose', 'sample', 'train'], ['capture'], `/projects/${project}/capture`, 4000);

export const useRuns = (project: string) =>
  useAfter<RunSummary[]>(project, ['train', 'evaluate'], ['runs'], `/projects/${project}/runs`, 3000);

/** The newest that a run has to show; looked for twice a second while it trains. */
export const useShownRun = (project: string, run: string | undefined) =>
  useAfter<ShownRun>(
    project,
    ['train'],
    ['shown', run ?? ''],
    run ? `/projects/${project}/runs/${run}/shown` : null,
    1000,
  );

export const useEvaluation = (project: string, run: string | undefined) =>
  useAfter<ShownEvaluation>(
    project,
    ['evaluate'],
    ['evaluation', run ?? ''],
    run ? `/projects/${project}/runs/${run}/shown/evaluation` : null,
  );

export const useUsage = (project: string) =>
  useAfter<{ files: number; photos: number; bytes: number }>(
    project,
    ['sample', 'pose', 'train', 'evaluate', 'render', 'export'],
    ['usage'],
    `/projects/${project}/usage`,
  );

export const useMethods = () =>
  useQuery({ queryKey: ['methods'], queryFn: () => told(http.GET('/api/v1/methods')), staleTime: Infinity });

export const useFormats = () =>
  useQuery({ queryKey: ['formats'], queryFn: () => told(http.GET('/api/v1/formats')), staleTime: Infinity });

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
      try {
        const query = { after: known.current.count };
        const found = await told(
          http.GET('/api/v1/jobs/{job}/events', { params: { path: { job: id }, query } }),
        );
        if (stopped) return;
        if (found.length) {
          known.current.count += found.length;
          setEvents((before) => [...before, ...found]);
        }
      } catch {
        // The server is away; the socket says so, and this goes on when it is back.
      }
      if (!stopped && working) timer = setTimeout(() => void more(), EVERY);
    };
    void more();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [id, working]);
  return events;
}
