// The empty state of a tab about runs.

import { Sparkles } from 'lucide-react';
import { Link } from 'wouter';

import { Empty } from '../design/Card';

export function NoRuns({ project }: { project: string }) {
  return (
    <Empty
      icon={<Sparkles />}
      title="No runs yet"
      action={
        <Link
          href={`/projects/${project}/train`}
          className="inline-flex h-10 items-center rounded-lg bg-sun px-4 text-sm font-medium text-sun-ink shadow-sm hover:brightness-105"
        >
          Go to training
        </Link>
      }
    >
      Train a run first.
    </Empty>
  );
}
