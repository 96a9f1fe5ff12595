// The ways that a project begins.

import { ask, http, type Project, told } from '../../api/client';
import { BUDGETS } from '../../jobs/startScan';
import { type Found } from '../../lib/droppedFiles';
import { send, taken } from '../../state/uploads';

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
