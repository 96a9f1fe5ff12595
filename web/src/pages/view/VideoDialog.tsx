// A video of the camera path: the form, the render job and the result.

import { useQuery } from '@tanstack/react-query';
import { Download } from 'lucide-react';
import { useState } from 'react';

import { submitJob, http, type Job, unwrap } from '../../api/client';
import { artifactFile } from '../../api/previews';
import { Button } from '../../design/Button';
import { Dialog } from '../../design/Dialog';
import { ProgressBar } from '../../design/ProgressBar';
import { showError } from '../../design/Toasts';
import { formatCount } from '../../lib/format';
import { statusText } from '../../jobs/jobLabels';
import { isActive, useJob, useJobs } from '../../state/store';
import { SegmentedControl } from '../../forms/SegmentedControl';
import { frames, type KeyFrame, sampleViews } from '../../geometry/cameraPath';

const SIZES = {
  photos: { label: 'Photo size', size: null },
  small: { label: '640 × 360', size: [640, 360] },
  hd: { label: '1280 × 720', size: [1280, 720] },
  full: { label: '1920 × 1080', size: [1920, 1080] },
} as const;
type Size = keyof typeof SIZES;
type Rate = '24' | '30' | '60';

export function VideoDialog({
  project,
  run,
  keys,
  open,
  onClose,
}: {
  project: string;
  run: string;
  keys: KeyFrame[];
  open: boolean;
  onClose: () => void;
}) {
  const [jobId, setJobId] = useState<string | undefined>();
  const latest = useJobs(project).find((job) => job.asked.verb === 'render' && job.asked.run === run);
  const job = useJob(jobId ?? latest?.id);
  return (
    <Dialog open={open} onClose={onClose} title="Video of this path">
      <div className="flex flex-col gap-5">
        <VideoForm
          project={project}
          run={run}
          keys={keys}
          busy={!!job && isActive(job)}
          onSubmitted={setJobId}
        />
        {job && <Progress job={job} />}
      </div>
    </Dialog>
  );
}

function VideoForm({
  project,
  run,
  keys,
  busy,
  onSubmitted,
}: {
  project: string;
  run: string;
  keys: KeyFrame[];
  busy: boolean;
  onSubmitted: (job: string) => void;
}) {
  const [size, setSize] = useState<Size>('photos');
  const [rate, setRate] = useState<Rate>('30');
  const fps = Number(rate);
  const frameCount = frames(keys, fps);
  const render = () =>
    submitJob(project, {
      verb: 'render',
      run,
      form: 'mp4',
      path: sampleViews(keys).map(({ position, look_at, up, fov }) => ({ position, look_at, up, fov })),
      frames: frameCount,
      fps,
      size: SIZES[size].size ? [...SIZES[size].size] : null,
    })
      .then((job) => onSubmitted(job.id))
      .catch(showError);
  return (
    <>
      <label className="text-xs text-soft">
        Size
        <select
          value={size}
          onChange={(event) => setSize(event.target.value as Size)}
          className="mt-1.5 h-10 w-full rounded-lg border border-line bg-ground px-3 text-sm text-ink"
        >
          {Object.entries(SIZES).map(([key, { label }]) => (
            <option key={key} value={key}>
              {label}
            </option>
          ))}
        </select>
      </label>
      <SegmentedControl
        name="Frame rate"
        options={(['24', '30', '60'] as const).map((value) => ({ value, label: value }))}
        value={rate}
        onChange={setRate}
      />
      <div className="flex items-center justify-between gap-3">
        <p className="text-sm text-soft">{formatCount(frameCount)} frames</p>
        <Button variant="primary" disabled={busy} onClick={() => void render()}>
          {busy ? 'Rendering …' : 'Render video'}
        </Button>
      </div>
    </>
  );
}

function Progress({ job }: { job: Job }) {
  const artifacts = useQuery({
    queryKey: ['video', job.id],
    queryFn: () => unwrap(http.GET('/api/v1/jobs/{job}/artifacts', { params: { path: { job: job.id } } })),
    enabled: job.state === 'succeeded',
  });
  const video = artifacts.data?.find((artifact) => artifact.name.endsWith('.mp4')) ?? artifacts.data?.[0];
  return (
    <div className="flex flex-col gap-2 border-t border-line pt-4" data-testid="video">
      <p role="status" className={`text-sm ${job.state === 'failed' ? 'text-bad' : 'text-soft'}`}>
        {video ? 'The video is ready.' : statusText(job)}
      </p>
      {isActive(job) && (
        <ProgressBar value={job.total ? job.done / job.total : null} label={statusText(job)} />
      )}
      {video && (
        <>
          <video
            src={artifactFile(video.id)}
            controls
            loop
            muted
            playsInline
            className="w-full rounded-lg bg-black"
          />
          <a
            href={artifactFile(video.id)}
            download={video.name}
            className="inline-flex h-10 items-center justify-center gap-2 rounded-lg border border-line text-sm font-medium hover:bg-raised"
          >
            <Download className="size-4" />
            Download
          </a>
        </>
      )}
    </div>
  );
}
