// Creates projects from files or from the sample.

import { submitJob, http, type Project, unwrap } from '../../api/client';
import { BUDGETS } from '../../jobs/startScan';
import { type NamedFile } from '../../lib/droppedFiles';
import { uploadFiles, acceptedFiles } from '../../state/uploads';

export const createProject = (name: string): Promise<Project> =>
  unwrap(http.POST('/api/v1/projects', { body: { name } }));

/** Creates a project named after the files and starts their upload. Throws if no file can be used. */
export async function createFromFiles(selection: NamedFile[]): Promise<Project> {
  const files = acceptedFiles(selection);
  if (!files.length) throw new Error('No photos, zip or video among these files.');
  const project = await createProject(projectName(selection));
  void uploadFiles(project.id, files);
  return project;
}

export function projectName(selection: NamedFile[]): string {
  const firstName = selection[0]?.name ?? '';
  const folder = firstName.includes('/') ? firstName.split('/')[0] : undefined;
  const title = folder ?? (selection.length === 1 ? firstName.replace(/\.[^.]+$/, '') : '');
  return (
    title.replace(/[_-]+/g, ' ').trim().slice(0, 200) ||
    `Photos of ${new Date().toLocaleDateString(undefined, { dateStyle: 'medium' })}`
  );
}

/** Creates a project with photos of the synthetic scene and a short training. */
export async function createSample(): Promise<Project> {
  const project = await createProject('Sample: a table of things');
  const photos = await submitJob(project.id, { verb: 'sample', views: 48, size: [480, 360] });
  const train = await submitJob(project.id, { verb: 'train', seconds: BUDGETS.quick }, [photos.id]);
  await submitJob(project.id, { verb: 'evaluate', run: train.id }, [train.id]);
  return project;
}
