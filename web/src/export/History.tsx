// Everything that was made in a project, newest first; and what could not be made, with the reason.

import { Download, FileText, Film, Package, TriangleAlert } from 'lucide-react';
import { type ReactNode, useState } from 'react';

import type { Artifact, Job } from '../api/client';
import { artifactFile } from '../api/shown';
import { Button } from '../design/Button';
import { Panel } from '../design/Card';
import { ago, bytes } from '../lib/format';
import { JobDialog } from '../project/JobDialog';
import { doing } from '../project/words';
import { useJobs } from '../state/store';
import { useArtifacts } from './artifacts';

const MOST = 12; // entries before somebody asks for more

type Entry = { created: number; id: string } & ({ file: Artifact } | { job: Job });

export function History({ project }: { project: string }) {
  const [all, showAll] = useState(false);
  const files = useArtifacts(project);
  const failed = useJobs(project).filter(
    (job) => job.state === 'failed' && ['export', 'render', 'compare'].includes(job.asked.verb),
  );
  const entries: Entry[] = [
    ...files.map((file) => ({ file, created: file.created, id: file.id })),
    ...failed.map((job) => ({ job, created: job.finished ?? job.created, id: job.id })),
  ].sort((a, b) => b.created - a.created);
  return (
    <Panel title="Made before">
      {entries.length === 0 ? (
        <p className="text-sm text-soft">Files and films that you make are kept here.</p>
      ) : (
        <ul className="-m-4 divide-y divide-line">
          {entries
            .slice(0, all ? undefined : MOST)
            .map((entry) =>
              'file' in entry ? (
                <File key={entry.id} file={entry.file} />
              ) : (
                <Failure key={entry.id} job={entry.job} />
              ),
            )}
        </ul>
      )}
      {entries.length > MOST && !all && (
        <div className="mt-6 text-center">
          <Button small look="quiet" onClick={() => showAll(true)}>
            Show all {entries.length}
          </Button>
        </div>
      )}
    </Panel>
  );
}

const ROW = 'flex items-center gap-3 px-4 py-3 text-sm [&>svg]:size-5 [&>svg]:shrink-0';

function iconOf(name: string): ReactNode {
  if (name.endsWith('.mp4')) return <Film className="text-soft" aria-hidden />;
  return /\.(html|json)$/.test(name) ? (
    <FileText className="text-soft" aria-hidden />
  ) : (
    <Package className="text-soft" aria-hidden />
  );
}

function File({ file }: { file: Artifact }) {
  return (
    <li className={ROW}>
      {iconOf(file.name)}
      <div className="min-w-0 flex-1">
        <p className="truncate font-medium">{file.name}</p>
        <p className="truncate text-xs text-soft tabular-nums">
          {file.what} · {bytes(file.bytes)} · {ago(file.created)}
        </p>
      </div>
      <a
        href={artifactFile(file.id)}
        download={file.name}
        aria-label={`Download ${file.name}, ${ago(file.created)}`}
        className="inline-flex size-9 shrink-0 items-center justify-center rounded-lg text-soft hover:bg-raised hover:text-ink"
      >
        <Download className="size-4" aria-hidden />
      </a>
    </li>
  );
}

function Failure({ job }: { job: Job }) {
  const [opened, open] = useState(false);
  return (
    <li className={ROW}>
      <TriangleAlert className="text-bad" aria-hidden />
      <div className="min-w-0 flex-1">
        <p className="text-bad">{doing(job)}</p>
        <p className="text-xs text-soft">{ago(job.finished ?? job.created)}</p>
      </div>
      <Button small look="quiet" onClick={() => open(true)}>
        Details
      </Button>
      <JobDialog id={opened ? job.id : null} onClose={() => open(false)} />
    </li>
  );
}
