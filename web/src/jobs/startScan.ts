// The scan of a project, and how long it may train.

import { http, type Job, unwrap, type TrainJob } from '../api/client';
import { newId } from '../lib/id';

export const BUDGETS = { quick: 30, good: 120, best: 600 } as const;
export type Budget = keyof typeof BUDGETS;

/** Files with camera poses: COLMAP, nerfstudio, Blender, LLFF. */
const POSED = /(^|\/)(transforms(_\w+)?\.json|cameras\.(bin|txt)|poses_bounds\.npy)$/;
export const havePoses = (names: string[]): boolean => names.some((name) => POSED.test(name));

/** Submits a scan: jobs for poses (if unknown), training, evaluation, video and export, each after the last. */
export const startScan = (project: string, names: string[], budget: Budget): Promise<Job[]> =>
  unwrap(
    http.POST('/api/v1/projects/{project}/scan', {
      params: { path: { project }, header: { 'Idempotency-Key': newId() } },
      body: {
        pose: havePoses(names) ? null : { verb: 'pose' },
        train: { verb: 'train', seconds: BUDGETS[budget] } as TrainJob,
      },
    }),
  ) as Promise<Job[]>;
