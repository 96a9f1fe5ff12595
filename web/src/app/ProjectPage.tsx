// The page of a project: name, current job and five tabs.

import { Box, Camera, Download, Gauge, Sparkles } from 'lucide-react';
import { lazy, type ReactNode, Suspense } from 'react';
import { Link } from 'wouter';

import { Empty } from '../design/Card';
import { useJobs, useStore } from '../state/store';
import { ActivityBar } from '../jobs/ActivityBar';

const PhotosTab = lazy(() => import('../pages/photos/PhotosTab').then((it) => ({ default: it.PhotosTab })));
const TrainTab = lazy(() => import('../pages/train/TrainTab').then((it) => ({ default: it.TrainTab })));
const ViewTab = lazy(() => import('../pages/view/ViewTab').then((it) => ({ default: it.ViewTab })));
const EvaluateTab = lazy(() =>
  import('../pages/evaluate/EvaluateTab').then((it) => ({ default: it.EvaluateTab })),
);
const ExportTab = lazy(() => import('../pages/export/ExportTab').then((it) => ({ default: it.ExportTab })));

export interface TabProps {
  project: string;
}

const TABS: { id: string; name: string; icon: ReactNode; render: (props: TabProps) => ReactNode }[] = [
  { id: 'photos', name: 'Photos', icon: <Camera />, render: (props) => <PhotosTab {...props} /> },
  { id: 'train', name: 'Train', icon: <Sparkles />, render: (props) => <TrainTab {...props} /> },
  { id: 'view', name: 'View', icon: <Box />, render: (props) => <ViewTab {...props} /> },
  { id: 'evaluate', name: 'Evaluate', icon: <Gauge />, render: (props) => <EvaluateTab {...props} /> },
  { id: 'export', name: 'Export', icon: <Download />, render: (props) => <ExportTab {...props} /> },
];

export function ProjectPage({ id, tab }: { id: string; tab: string | undefined }) {
  const project = useStore((state) => state.projects[id]);
  const connected = useStore((state) => state.connected);
  const jobs = useJobs(id);
  if (!project) {
    return connected === null ? null : (
      <Empty title="Project not found">
        It may have been deleted. Open your projects from the link at the top.
      </Empty>
    );
  }
  const current = TABS.find((entry) => entry.id === tab) ?? TABS[0];
  return (
    <>
      <div className="border-b border-line bg-surface px-4 sm:px-6">
        <div className="flex flex-wrap items-center justify-between gap-x-6 gap-y-1 pt-3">
          <h1 className="truncate text-lg font-semibold">{project.name}</h1>
          <ActivityBar jobs={jobs} />
        </div>
        <nav aria-label="Tabs of this project" className="-mb-px flex gap-1 overflow-x-auto pt-1">
          {TABS.map((entry) => (
            <Link
              key={entry.id}
              href={`/projects/${id}/${entry.id}`}
              aria-current={entry === current ? 'page' : undefined}
              className="flex items-center gap-2 border-b-2 border-transparent px-3 py-2.5 text-sm text-soft hover:text-ink aria-[current]:border-sun aria-[current]:font-medium aria-[current]:text-ink [&_svg]:size-4"
            >
              {entry.icon}
              {entry.name}
            </Link>
          ))}
        </nav>
      </div>
      <Suspense fallback={<p className="p-8 text-center text-sm text-soft">Loading …</p>}>
        {current?.render({ project: id })}
      </Suspense>
    </>
  );
}
