// The Photos tab: files, camera poses and the start of a scan.

import { useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useState } from 'react';

import { http, unwrap } from '../../api/client';
import { useCapture } from '../../state/queries';
import { Panel } from '../../design/Card';
import { showError } from '../../design/Toasts';
import { pluralize } from '../../lib/format';
import { FileDropZone } from '../../forms/FileDropZone';
import { uploadFiles, acceptedFiles, useUploads } from '../../state/uploads';
import { useJobs } from '../../state/store';
import { PhotoDialog } from './PhotoDialog';
import { PhotoGrid } from './PhotoGrid';
import { ScanForm } from './ScanForm';
import { UploadProgress } from './UploadProgress';

const CaptureScene = lazy(() => import('./CaptureScene').then((it) => ({ default: it.CaptureScene })));

export function PhotosTab({ project }: { project: string }) {
  const jobs = useJobs(project);
  const sending = useUploads((all) => all[project]);
  const capture = useCapture(project).data ?? null;
  const files = useQuery({
    queryKey: [
      'files',
      project,
      sending?.done ?? -1,
      jobs
        .filter((job) => job.asked.verb === 'sample')
        .map((job) => job.state)
        .join(),
    ],
    queryFn: () => unwrap(http.GET('/api/v1/projects/{project}/files', { params: { path: { project } } })),
    placeholderData: (before) => before,
    staleTime: 0, // after an upload the key is the same, but the list is not
  });
  const names = (files.data ?? []).map((file) => file.name);
  const [chosen, choose] = useState<string | null>(null);
  const add = (found: Parameters<typeof acceptedFiles>[0]) =>
    void uploadFiles(project, acceptedFiles(found)).catch(showError);

  return (
    <div className="mx-auto flex w-full max-w-6xl flex-col gap-6 px-4 py-6 sm:px-6">
      {sending && <UploadProgress sending={sending} />}
      {names.length > 0 && !sending && <ScanForm project={project} names={names} jobs={jobs} />}
      {capture && (
        <Panel
          title="Camera poses"
          aside={<span className="text-xs text-soft">{pluralize(capture.images.length, 'camera')}</span>}
        >
          <Suspense fallback={<div className="h-80" />}>
            <CaptureScene project={project} capture={capture} selected={chosen} onChoose={choose} />
          </Suspense>
          <p className="mt-2 text-xs text-soft">
            Drag to orbit, scroll to zoom, click a camera to see its photo.
          </p>
        </Panel>
      )}
      {names.length > 0 && (
        <PhotoGrid project={project} files={files.data ?? []} capture={capture} onChoose={choose} />
      )}
      {files.data && (
        <FileDropZone small={names.length > 0} onFiles={add}>
          <p className="text-sm text-soft">
            {names.length
              ? 'Add more photos of the same scene at any time.'
              : 'No photos yet. Drop some here.'}
          </p>
        </FileDropZone>
      )}
      <PhotoDialog project={project} name={chosen} capture={capture} onClose={() => choose(null)} />
    </div>
  );
}
