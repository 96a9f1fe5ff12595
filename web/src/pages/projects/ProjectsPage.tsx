// The list of projects, and the ways to create one.

import { Search, Trash2 } from 'lucide-react';
import { useState } from 'react';
import { useLocation } from 'wouter';

import type { Project } from '../../api/client';
import { Button } from '../../design/Button';
import { Empty } from '../../design/Card';
import { showError } from '../../design/Toasts';
import { useProjects, useStore } from '../../state/store';
import { ProjectBin } from './ProjectBin';
import { FileDropZone } from '../../forms/FileDropZone';
import { ProjectCard } from './ProjectCard';
import { createFromFiles, createSample } from './createProject';

const SEARCH_MIN_PROJECTS = 6; // fewer need no search field

export function ProjectsPage() {
  const projects = useProjects();
  const connected = useStore((state) => state.connected);
  const [, go] = useLocation();
  const [sought, seek] = useState('');
  const [binOpen, openBin] = useState(false);
  const [busy, setBusy] = useState(false);

  const begin = (beginning: () => Promise<Project>, room: string) => {
    if (busy) return;
    setBusy(true);
    beginning()
      .then((project) => go(`/projects/${project.id}/${room}`))
      .catch(showError)
      .finally(() => setBusy(false));
  };
  const words = sought.toLowerCase().split(/\s+/);
  const shown = projects.filter(({ name }) => words.every((word) => name.toLowerCase().includes(word)));

  return (
    <div className="mx-auto flex w-full max-w-6xl flex-col gap-8 px-4 py-8 sm:px-6">
      <FileDropZone onFiles={(found) => begin(() => createFromFiles(found), 'photos')}>
        <h1 className="text-2xl font-semibold tracking-tight text-balance">Drop photos, explore the scene</h1>
        <p className="max-w-lg text-sm text-soft">
          30 to 150 photos of a static scene from all around, a slow video, or a zip. Your data stays on this
          server.
        </p>
      </FileDropZone>

      <section aria-label="Projects" className="flex flex-col gap-4">
        <header className="flex flex-wrap items-center justify-between gap-3">
          <h2 className="text-base font-semibold">Projects</h2>
          <div className="flex items-center gap-2">
            {projects.length >= SEARCH_MIN_PROJECTS && (
              <label className="flex h-9 items-center gap-2 rounded-lg border border-line bg-surface px-3 text-sm">
                <Search className="size-4 text-soft" aria-hidden />
                <span className="sr-only">Search projects</span>
                <input
                  className="w-36 bg-transparent outline-none"
                  placeholder="Search"
                  value={sought}
                  onChange={(event) => seek(event.target.value)}
                />
              </label>
            )}
            <Button small variant="quiet" icon={<Trash2 className="size-4" />} onClick={() => openBin(true)}>
              Bin
            </Button>
          </div>
        </header>
        {connected !== null && !projects.length && (
          <Empty
            title="No projects yet"
            action={
              <Button variant="primary" aria-disabled={busy} onClick={() => begin(createSample, 'train')}>
                Try a sample
              </Button>
            }
          >
            No photos at hand? The sample is a synthetic scene, rendered and reconstructed here in about a
            minute.
          </Empty>
        )}
        {sought && !shown.length && <p className="text-sm text-soft">No project matches.</p>}
        <ul className="grid grid-cols-1 gap-4 sm:grid-cols-2 lg:grid-cols-3">
          {shown.map((project) => (
            <li key={project.id}>
              <ProjectCard project={project} />
            </li>
          ))}
        </ul>
        {projects.length > 0 && (
          <p className="text-sm text-soft">
            <button
              type="button"
              aria-disabled={busy}
              className="font-medium text-sun-text hover:underline"
              onClick={() => begin(createSample, 'train')}
            >
              Create a sample project
            </button>{' '}
            from a synthetic scene.
          </p>
        )}
      </section>
      <ProjectBin open={binOpen} onClose={() => openBin(false)} />
    </div>
  );
}
