// Types and addresses of the previews that workers write: a capture's cameras, a run's newest state, its evaluation.

import { API, type Schema } from './client';

export type Capture = Schema['CapturePreview'];
export type CaptureImage = Schema['PosedImage']; // the camera looks along +z, +y is down
export type RunSummary = Schema['RunSummary'];
export type RunPreview = Schema['RunPreview'];
export type EvaluationPreview = Schema['EvaluationPreview'];
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
