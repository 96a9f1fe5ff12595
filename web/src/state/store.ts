// The newest state of projects and jobs. The event socket writes it; pages read it.

import { useMemo } from 'react';
import { create } from 'zustand';
import { useShallow } from 'zustand/react/shallow';

import type { Job, Project } from '../api/client';

interface Store {
  connected: boolean | null; // null until the first message
  projects: Record<string, Project>;
  jobs: Record<string, Job>;
  update: (projects: Project[], jobs: Job[], snapshot: boolean) => void;
  disconnect: () => void;
  removeProject: (project: string) => void;
}

export const useStore = create<Store>((set) => ({
  connected: null,
  projects: {},
  jobs: {},
  update: (projects, jobs, snapshot) =>
    set((old) => ({
      connected: true,
      projects: { ...(snapshot ? {} : old.projects), ...keepNewer(old.projects, projects) },
      jobs: { ...(snapshot ? {} : old.jobs), ...keepNewer(old.jobs, jobs) },
    })),
  disconnect: () => set({ connected: false }),
  removeProject: (project) =>
    set((old) => ({
      projects: Object.fromEntries(Object.entries(old.projects).filter(([id]) => id !== project)),
      jobs: Object.fromEntries(Object.entries(old.jobs).filter(([, job]) => job.project !== project)),
    })),
}));

/** A response may arrive after a newer event for the same object: the larger `seq` wins. */
function keepNewer<T extends { id: string; seq: number }>(
  existing: Record<string, T>,
  received: T[],
): Record<string, T> {
  return Object.fromEntries(
    received.map((item) => {
      const known = existing[item.id];
      return [item.id, known && known.seq > item.seq ? known : item];
    }),
  );
}

export function useProjects(): Project[] {
  const snapshot = useStore((state) => state.projects);
  return useMemo(
    () =>
      Object.values(snapshot)
        .filter((item) => item.deleted === null)
        .sort((a, b) => b.created - a.created),
    [snapshot],
  );
}

/** The jobs of a project, newest first. */
export function useJobs(project: string): Job[] {
  const projectJobs = useStore(
    useShallow((state) => Object.values(state.jobs).filter((job) => job.project === project)),
  );
  return useMemo(
    () => [...projectJobs].sort((a, b) => b.created - a.created || b.seq - a.seq),
    [projectJobs],
  );
}

export const useJob = (id: string | undefined): Job | undefined =>
  useStore((state) => (id === undefined ? undefined : state.jobs[id]));

export const isActive = (job: Job): boolean => job.state === 'running' || job.state === 'queued';
