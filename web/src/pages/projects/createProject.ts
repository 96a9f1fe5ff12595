// The ways that a project begins.

import { ask, http, type Job, type Project, told, type TrainJob } from '../../api/client';
import { newId } from '../../lib/id';
import { type Found, send, taken } from '../../api/uploads';

export const BUDGETS = { quick: 30, good: 120, best: 600 } as const;
export type Budget = keyof typeof BUDGETS;

export const create = (name: string): Promise<Project> =>
  told(http.POST('/api/v1/projects', { body: { name } }));

/** A project named after what was dropped, with the files on their way. Raises where nothing of it can be used. */
export async function fromFiles(found: Found[]): Promise<Project> {
  const files = taken(found);
  if (!files.length) throw new Error('None of these are photos, a zip of photos, or a video.');
  const project = await create(nameOf(found));
  void send(project.id, files);
  return project;
}

export function nameOf(found: Found[]): string {
  const first = found[0]?.name ?? '';
  const folder = first.includes('/') ? first.split('/')[0] : undefined;
  const plain = folder ?? (found.length === 1 ? first.replace(/\.[^.]+$/, '') : '');
  return (
    plain.replace(/[_-]+/g, ' ').trim().slice(0, 200) ||
    `Photos of ${new Date().toLocaleDateString(undefined, { dateStyle: 'medium' })}`
  );
}

/** Photos of a made-up scene, and a short training of them. */
export async function fromSample(): Promise<Project> {
  const project = await create('Sample: a table of things');
  const photos = await ask(project.id, { verb: 'sample', views: 48, size: [480, 360] });
  const train = await ask(project.id, { verb: 'train', seconds: BUDGETS.quick }, [photos.id]);
  await ask(project.id, { verb: 'evaluate', run: train.id }, [train.id]);
  return project;
}

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
