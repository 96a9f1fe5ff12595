// Exported files of a project, newest first, with failed exports and their errors.

import { Download, FileText, Film, Package, TriangleAlert } from 'lucide-react';
import { type ReactNode, useState } from 'react';

import type { Artifact, Job } from '../../api/client';
import { artifactFile } from '../../api/previews';
import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { formatAge, formatBytes } from '../../lib/format';
import { JobDialog } from '../../jobs/JobDialog';
import { statusText } from '../../jobs/jobLabels';
import { useJob, useJobs } from '../../state/store';
import { useArtifacts } from '../../jobs/artifacts';
import { reportOf, words } from './exportReport';

const MADE: Job['asked']['verb'][] = ['export', 'render', 'compare'];

type Entry = { created: number; id: string } & ({ file: Artifact } | { job: Job });

export function ExportHistory({ project }: { project: string }) {
  const [all, showAll] = useState(false);
  const files = useArtifacts(project);
  const jobs = useJobs(project);
  const making = new Set(jobs.filter((job) => MADE.includes(job.asked.verb)).map((job) => job.id));
  const wanted = all ? files : files.filter((file) => making.has(file.job));
  const failed = jobs.filter((job) => job.state === 'failed' && making.has(job.id));
  const entries: Entry[] = [
    ...wanted.map((file) => ({ file, created: file.created, id: file.id })),
    ...failed.map((job) => ({ job, created: job.finished ?? job.created, id: job.id })),
  ].sort((a, b) => b.created - a.created);
  return (
    <Panel
      title="History"
      aside={
        <label className="flex items-center gap-2 text-xs text-soft">
          <input
            type="checkbox"
            className="size-4 accent-sun"
            checked={all}
            onChange={(event) => showAll(event.target.checked)}
          />
          Show runs and reports
        </label>
      }
    >
      {entries.length === 0 ? (
        <p className="text-sm text-soft">Exported files and videos appear here.</p>
      ) : (
        <ul className="-m-4 divide-y divide-line">
          {entries.map((entry) =>
            'file' in entry ? (
              <File key={entry.id} file={entry.file} />
            ) : (
              <Failure key={entry.id} job={entry.job} />
            ),
          )}
        </ul>
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
  const report = reportOf(useJob(file.job));
  return (
    <li className={ROW}>
      {iconOf(file.name)}
      <div className="min-w-0 flex-1">
        <p className="truncate font-medium">{file.name}</p>
        <p className="text-xs text-soft tabular-nums">
          {report ? words(report) : file.what} · {formatBytes(file.bytes)} · {formatAge(file.created)}
        </p>
      </div>
      <a
        href={artifactFile(file.id)}
        download={file.name}
        aria-label={`Download ${file.name}, ${formatAge(file.created)}`}
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
        <p className="text-bad">{statusText(job)}</p>
        <p className="text-xs text-soft">{formatAge(job.finished ?? job.created)}</p>
      </div>
      <Button small variant="quiet" onClick={() => open(true)}>
        Details
      </Button>
      <JobDialog id={opened ? job.id : null} onClose={() => open(false)} />
    </li>
  );
}
