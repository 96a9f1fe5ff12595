// What the server last said of projects and jobs. The socket writes it; pages read it.

import { useMemo } from 'react';
import { create } from 'zustand';
import { useShallow } from 'zustand/react/shallow';

import type { Job, Project } from '../api/client';

interface Studio {
  connected: boolean | null; // null until the first news
  projects: Record<string, Project>;
  jobs: Record<string, Job>;
  hear: (projects: Project[], jobs: Job[], all: boolean) => void;
  lose: () => void;
  drop: (project: string) => void;
}

export const useStudio = create<Studio>((set) => ({
  connected: null,
  projects: {},
  jobs: {},
  hear: (projects, jobs, all) =>
    set((old) => ({
      connected: true,
      projects: { ...(all ? {} : old.projects), ...newer(old.projects, projects) },
      jobs: { ...(all ? {} : old.jobs), ...newer(old.jobs, jobs) },
    })),
  lose: () => set({ connected: false }),
  drop: (project) =>
    set((old) => ({
      projects: Object.fromEntries(Object.entries(old.projects).filter(([id]) => id !== project)),
      jobs: Object.fromEntries(Object.entries(old.jobs).filter(([, job]) => job.project !== project)),
    })),
}));

/** An answer to a request may come after newer news of the same thing: the larger `seq` stays. */
function newer<T extends { id: string; seq: number }>(
  known: Record<string, T>,
  came: T[],
): Record<string, T> {
  return Object.fromEntries(
    came.map((one) => {
      const had = known[one.id];
      return [one.id, had && had.seq > one.seq ? had : one];
    }),
  );
}

export function useProjects(): Project[] {
  const all = useStudio((state) => state.projects);
  return useMemo(
    () =>
      Object.values(all)
        .filter((one) => one.deleted === null)
        .sort((a, b) => b.created - a.created),
    [all],
  );
}

/** The jobs of a project, newest first. */
export function useJobs(project: string): Job[] {
  const mine = useStudio(
    useShallow((state) => Object.values(state.jobs).filter((job) => job.project === project)),
  );
  return useMemo(() => [...mine].sort((a, b) => b.created - a.created || b.seq - a.seq), [mine]);
}

export const useJob = (id: string | undefined): Job | undefined =>
  useStudio((state) => (id === undefined ? undefined : state.jobs[id]));

export const atWork = (job: Job): boolean => job.state === 'running' || job.state === 'queued';
