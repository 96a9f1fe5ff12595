// Deleted projects: restore them or delete them for good.

import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';

import { http, type Project, unwrap } from '../../api/client';
import { Button } from '../../design/Button';
import { Dialog } from '../../design/Dialog';
import { showError, showMessage } from '../../design/Toasts';
import { formatAge } from '../../lib/format';
import { useStore } from '../../state/store';

export const restore = (project: string): Promise<unknown> =>
  unwrap(http.POST('/api/v1/projects/{project}/restore', { params: { path: { project } } })).catch(showError);

export function ProjectBin({ open, onClose }: { open: boolean; onClose: () => void }) {
  const all = useStore((state) => state.projects);
  const binned = Object.values(all)
    .filter((project) => project.deleted !== null)
    .sort((a, b) => (b.deleted ?? 0) - (a.deleted ?? 0));
  return (
    <Dialog open={open} onClose={onClose} title="Bin">
      {binned.length === 0 && (
        <p className="text-sm text-soft">
          The bin is empty. Deleted projects stay here until you remove them.
        </p>
      )}
      <ul className="flex flex-col divide-y divide-line">
        {binned.map((project) => (
          <DeletedProject key={project.id} project={project} />
        ))}
      </ul>
    </Dialog>
  );
}

function DeletedProject({ project }: { project: Project }) {
  const [sure, submitJob] = useState(false);
  const queries = useQueryClient();
  const purge = () =>
    unwrap(http.DELETE('/api/v1/projects/{project}/forever', { params: { path: { project: project.id } } }))
      .then(() => {
        useStore.getState().removeProject(project.id);
        queries.removeQueries({ predicate: ({ queryKey }) => queryKey.includes(project.id) });
        showMessage(`“${project.name}” is deleted.`);
      })
      .catch(showError);
  return (
    <li className="flex items-center justify-between gap-3 py-2 text-sm">
      <span className="min-w-0">
        <span className="block truncate">{project.name}</span>
        <span className="text-xs text-soft">deleted {formatAge(project.deleted ?? 0)}</span>
      </span>
      <span className="flex gap-1">
        <Button small onClick={() => void restore(project.id)}>
          Restore
        </Button>
        {sure ? (
          <Button small variant="danger" onClick={() => void purge()}>
            Delete for good
          </Button>
        ) : (
          <Button small variant="quiet" onClick={() => submitJob(true)}>
            Remove
          </Button>
        )}
      </span>
    </li>
  );
}
