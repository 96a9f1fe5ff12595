// The scan of a project, and how long it may train.

import { http, type Job, told, type TrainJob } from '../api/client';
import { newId } from '../lib/id';

export const BUDGETS = { quick: 30, good: 120, best: 600 } as const;
export type Budget = keyof typeof BUDGETS;

/** Files that say by themselves where the photos were taken: COLMAP's, nerfstudio's, Blender's, LLFF's. */
const POSED = /(^|\/)(transforms(_\w+)?\.json|cameras\.(bin|txt)|poses_bounds\.npy)$/;
export const havePoses = (names: string[]): boolean => names.some((name) => POSED.test(name));

/** All of it, as jobs that wait for each other: poses where they are unknown, training, evaluation, film and file. */
export const scan = (project: string, names: string[], budget: Budget): Promise<Job[]> =>
  told(
    http.POST('/api/v1/projects/{project}/scan', {
      params: { path: { project }, header: { 'Idempotency-Key': newId() } },
      body: {
        pose: havePoses(names) ? null : { verb: 'pose' },
        train: { verb: 'train', seconds: BUDGETS[budget] } as TrainJob,
      },
    }),
  ) as Promise<Job[]>;
