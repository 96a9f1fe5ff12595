// Projects that were deleted: from here they come back, or go for good.

import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';

import { http, type Project, told } from '../../api/client';
import { Button } from '../../design/Button';
import { Dialog } from '../../design/Dialog';
import { complain, say } from '../../design/Toasts';
import { ago } from '../../lib/format';
import { useStudio } from '../../state/store';

export const restore = (project: string): Promise<unknown> =>
  told(http.POST('/api/v1/projects/{project}/restore', { params: { path: { project } } })).catch(complain);

export function Bin({ open, onClose }: { open: boolean; onClose: () => void }) {
  const all = useStudio((state) => state.projects);
  const binned = Object.values(all)
    .filter((project) => project.deleted !== null)
    .sort((a, b) => (b.deleted ?? 0) - (a.deleted ?? 0));
  return (
    <Dialog open={open} onClose={onClose} title="Bin">
      {binned.length === 0 && (
        <p className="text-sm text-soft">
          The bin is empty. What you delete waits here until you remove it for good.
        </p>
      )}
      <ul className="flex flex-col divide-y divide-line">
        {binned.map((project) => (
          <Binned key={project.id} project={project} />
        ))}
      </ul>
    </Dialog>
  );
}

function Binned({ project }: { project: Project }) {
  const [sure, ask] = useState(false);
  const queries = useQueryClient();
  const purge = () =>
    told(http.DELETE('/api/v1/projects/{project}/forever', { params: { path: { project: project.id } } }))
      .then(() => {
        useStudio.getState().drop(project.id);
        queries.removeQueries({ predicate: ({ queryKey }) => queryKey.includes(project.id) });
        say(`“${project.name}” is gone.`);
      })
      .catch(complain);
  return (
    <li className="flex items-center justify-between gap-3 py-2 text-sm">
      <span className="min-w-0">
        <span className="block truncate">{project.name}</span>
        <span className="text-xs text-soft">deleted {ago(project.deleted ?? 0)}</span>
      </span>
      <span className="flex gap-1">
        <Button small onClick={() => void restore(project.id)}>
          Restore
        </Button>
        {sure ? (
          <Button small look="danger" onClick={() => void purge()}>
            Yes, for good
          </Button>
        ) : (
          <Button small look="quiet" onClick={() => ask(true)}>
            Remove
          </Button>
        )}
      </span>
    </li>
  );
}
