import { MoreHorizontal } from 'lucide-react';
import { DropdownMenu } from 'radix-ui';
import { type FormEvent, useRef, useState } from 'react';
import { Link } from 'wouter';

import { API, http, type Job, type Project, unwrap } from '../../api/client';
import { useUsage } from '../../state/queries';
import { Button, IconButton } from '../../design/Button';
import { Card } from '../../design/Card';
import { Dialog } from '../../design/Dialog';
import { ProgressBar } from '../../design/ProgressBar';
import { showError, showMessage } from '../../design/Toasts';
import { formatAge, formatBytes, pluralize } from '../../lib/format';
import { statusText } from '../../jobs/jobLabels';
import { isActive, useJobs } from '../../state/store';
import { restore } from './ProjectBin';

export function ProjectCard({ project }: { project: Project }) {
  const jobs = useJobs(project.id);
  const usage = useUsage(project.id).data;
  const job = jobs.find((one) => one.state === 'running') ?? jobs.find(isActive);
  const [renaming, rename] = useState(false);
  return (
    <Card className="group relative overflow-hidden transition hover:border-sun-text">
      <Link href={`/projects/${project.id}/${tabAddress(jobs)}`} className="block">
        <Cover
          project={project.id}
          mark={jobs.filter((one) => !isActive(one)).length + (usage?.photos ?? 0)}
        />
        <div className="flex flex-col gap-1 p-4 pr-12">
          <h3 className="truncate font-medium">{project.name}</h3>
          <p className="truncate text-xs text-soft">
            {formatAge(project.created)}
            {usage && usage.photos > 0 && `, ${pluralize(usage.photos, 'photo')}`}
            {usage && usage.bytes > 0 && `, ${formatBytes(usage.bytes)}`}
          </p>
          {job && (
            <div className="mt-1 flex flex-col gap-1.5">
              <p className="truncate text-xs text-soft">{statusText(job)}</p>
              <ProgressBar value={job.total ? job.done / job.total : null} label={statusText(job)} />
            </div>
          )}
        </div>
      </Link>
      <div className="absolute right-2 bottom-2">
        <Menu project={project} onRename={() => rename(true)} />
      </div>
      <Rename project={project} open={renaming} onClose={() => rename(false)} />
    </Card>
  );
}

/** The tab to open first: Train, View or Photos. */
const tabAddress = (jobs: Job[]): string =>
  jobs.some((job) => job.asked.verb === 'train' && isActive(job))
    ? 'train'
    : jobs.some((job) => job.asked.verb === 'train' && job.state === 'succeeded')
      ? 'view'
      : 'photos';

function Cover({ project, mark }: { project: string; mark: number }) {
  const [missing, miss] = useState(-1);
  return (
    <div className="aspect-[16/10] overflow-hidden bg-raised">
      {missing !== mark && (
        <img
          src={`${API}/projects/${project}/cover?${mark}`}
          alt=""
          loading="lazy"
          className="size-full object-cover transition duration-500 group-hover:scale-[1.02]"
          onError={() => miss(mark)}
        />
      )}
    </div>
  );
}

function Menu({ project, onRename }: { project: Project; onRename: () => void }) {
  const bin = () =>
    unwrap(http.DELETE('/api/v1/projects/{project}', { params: { path: { project: project.id } } }))
      .then(() => showMessage(`“${project.name}” is in the bin.`, () => void restore(project.id)))
      .catch(showError);
  const renaming = useRef(false); // open the dialog after the menu has closed, so that the focus returns to the menu button
  const item = 'cursor-pointer rounded-md px-3 py-1.5 text-sm -outline-offset-2 data-highlighted:bg-raised';
  return (
    <DropdownMenu.Root>
      <DropdownMenu.Trigger asChild>
        <IconButton label={`More about ${project.name}`}>
          <MoreHorizontal className="size-4" />
        </IconButton>
      </DropdownMenu.Trigger>
      <DropdownMenu.Portal>
        <DropdownMenu.Content
          align="end"
          onCloseAutoFocus={() => {
            if (renaming.current) onRename();
            renaming.current = false;
          }}
          className="z-30 min-w-36 rounded-lg border border-line bg-surface p-1 shadow-xl"
        >
          <DropdownMenu.Item className={item} onSelect={() => (renaming.current = true)}>
            Rename
          </DropdownMenu.Item>
          <DropdownMenu.Item className={`${item} text-bad`} onSelect={() => void bin()}>
            Delete
          </DropdownMenu.Item>
        </DropdownMenu.Content>
      </DropdownMenu.Portal>
    </DropdownMenu.Root>
  );
}

function Rename({ project, open, onClose }: { project: Project; open: boolean; onClose: () => void }) {
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const name = String(new FormData(event.currentTarget).get('name')).trim();
    unwrap(
      http.PATCH('/api/v1/projects/{project}', { params: { path: { project: project.id } }, body: { name } }),
    ).then(onClose, showError);
  };
  return (
    <Dialog open={open} onClose={onClose} title="Rename project">
      <form onSubmit={submit} className="flex flex-col gap-4">
        <label className="flex flex-col gap-1.5 text-sm">
          Name
          <input
            name="name"
            required
            maxLength={200}
            defaultValue={project.name}
            className="h-10 rounded-lg border border-line bg-ground px-3"
          />
        </label>
        <Button type="submit" variant="primary" className="self-end">
          Rename
        </Button>
      </form>
    </Dialog>
  );
}
