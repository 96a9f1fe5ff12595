// From key frames to a film: the question, the job on the server, and the film when it is there.

import { useQuery } from '@tanstack/react-query';
import { Download } from 'lucide-react';
import { useState } from 'react';

import { ask, http, type Job, told } from '../../api/client';
import { artifactFile } from '../../api/previews';
import { Button } from '../../design/Button';
import { Dialog } from '../../design/Dialog';
import { Meter } from '../../design/ProgressBar';
import { complain } from '../../design/Toasts';
import { count } from '../../lib/format';
import { doing } from '../../jobs/jobLabels';
import { atWork, useJob, useJobs } from '../../state/store';
import { Choice } from '../../forms/SegmentedControl';
import { frames, type KeyFrame, knots } from '../../geometry/cameraPath';

const SIZES = {
  photos: { label: 'As the photos', size: null },
  small: { label: '640 × 360', size: [640, 360] },
  hd: { label: '1280 × 720', size: [1280, 720] },
  full: { label: '1920 × 1080', size: [1920, 1080] },
} as const;
type Size = keyof typeof SIZES;
type Rate = '24' | '30' | '60';

export function FilmDialog({
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
  const [asked, setAsked] = useState<string | undefined>();
  const before = useJobs(project).find((job) => job.asked.verb === 'render' && job.asked.run === run);
  const job = useJob(asked ?? before?.id);
  return (
    <Dialog open={open} onClose={onClose} title="Film of this path">
      <div className="flex flex-col gap-5">
        <Question project={project} run={run} keys={keys} busy={!!job && atWork(job)} onAsked={setAsked} />
        {job && <Progress job={job} />}
      </div>
    </Dialog>
  );
}

function Question({
  project,
  run,
  keys,
  busy,
  onAsked,
}: {
  project: string;
  run: string;
  keys: KeyFrame[];
  busy: boolean;
  onAsked: (job: string) => void;
}) {
  const [size, setSize] = useState<Size>('photos');
  const [rate, setRate] = useState<Rate>('30');
  const fps = Number(rate);
  const pictures = frames(keys, fps);
  const make = () =>
    ask(project, {
      verb: 'render',
      run,
      form: 'mp4',
      path: knots(keys).map(({ position, look_at, up, fov }) => ({ position, look_at, up, fov })),
      frames: pictures,
      fps,
      size: SIZES[size].size ? [...SIZES[size].size] : null,
    })
      .then((made) => onAsked(made.id))
      .catch(complain);
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
      <Choice
        name="Frames a second"
        options={(['24', '30', '60'] as const).map((value) => ({ value, label: value }))}
        value={rate}
        onChange={setRate}
      />
      <div className="flex items-center justify-between gap-3">
        <p className="text-sm text-soft">{count(pictures)} frames</p>
        <Button look="primary" disabled={busy} onClick={() => void make()}>
          {busy ? 'One is being made' : 'Make the film'}
        </Button>
      </div>
    </>
  );
}

function Progress({ job }: { job: Job }) {
  const films = useQuery({
    queryKey: ['film', job.id],
    queryFn: () => told(http.GET('/api/v1/jobs/{job}/artifacts', { params: { path: { job: job.id } } })),
    enabled: job.state === 'succeeded',
  });
  const made = films.data?.find((one) => one.name.endsWith('.mp4')) ?? films.data?.[0];
  return (
    <div className="flex flex-col gap-2 border-t border-line pt-4" data-testid="film">
      <p role="status" className={`text-sm ${job.state === 'failed' ? 'text-bad' : 'text-soft'}`}>
        {made ? 'Here it is.' : doing(job)}
      </p>
      {atWork(job) && <Meter value={job.total ? job.done / job.total : null} label={doing(job)} />}
      {made && (
        <>
          <video
            src={artifactFile(made.id)}
            controls
            loop
            muted
            playsInline
            className="w-full rounded-lg bg-black"
          />
          <a
            href={artifactFile(made.id)}
            download={made.name}
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
