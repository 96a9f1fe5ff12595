// What a project is made of: its photos, where they were taken, and the button that makes a scene of them.

import { useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useState } from 'react';

import { http, told } from '../../api/client';
import { useCapture } from '../../state/queries';
import { Panel } from '../../design/Card';
import { complain } from '../../design/Toasts';
import { plural } from '../../lib/format';
import { DropZone } from '../../forms/FileDropZone';
import { send, taken, useSendings } from '../../state/uploads';
import { useJobs } from '../../state/store';
import { Photo } from './PhotoDialog';
import { Photos } from './PhotoGrid';
import { Start } from './ScanForm';
import { Uploading } from './UploadProgress';

const CaptureScene = lazy(() => import('./CaptureScene').then((it) => ({ default: it.CaptureScene })));

export function PhotosTab({ project }: { project: string }) {
  const jobs = useJobs(project);
  const sending = useSendings((all) => all[project]);
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
    queryFn: () => told(http.GET('/api/v1/projects/{project}/files', { params: { path: { project } } })),
    placeholderData: (before) => before,
    staleTime: 0, // after an upload the key is what it was before, and the list is not
  });
  const names = (files.data ?? []).map((file) => file.name);
  const [chosen, choose] = useState<string | null>(null);
  const add = (found: Parameters<typeof taken>[0]) => void send(project, taken(found)).catch(complain);

  return (
    <div className="mx-auto flex w-full max-w-6xl flex-col gap-6 px-4 py-6 sm:px-6">
      {sending && <Uploading sending={sending} />}
      {names.length > 0 && !sending && <Start project={project} names={names} jobs={jobs} />}
      {capture && (
        <Panel
          title="Where the photos were taken"
          aside={<span className="text-xs text-soft">{plural(capture.images.length, 'camera')}</span>}
        >
          <Suspense fallback={<div className="h-80" />}>
            <CaptureScene project={project} capture={capture} chosen={chosen} onChoose={choose} />
          </Suspense>
          <p className="mt-2 text-xs text-soft">
            Drag to turn, scroll to come closer; a click on a camera shows its photo.
          </p>
        </Panel>
      )}
      {names.length > 0 && (
        <Photos project={project} files={files.data ?? []} capture={capture} onChoose={choose} />
      )}
      {files.data && (
        <DropZone small={names.length > 0} onFiles={add}>
          <p className="text-sm text-soft">
            {names.length
              ? 'More photos of the same place can be added at any time.'
              : 'This project has no photos yet. Drop some here.'}
          </p>
        </DropZone>
      )}
      <Photo project={project} name={chosen} capture={capture} onClose={() => choose(null)} />
    </div>
  );
}
