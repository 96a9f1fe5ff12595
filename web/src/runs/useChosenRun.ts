// The run in the address.

import { useMemo } from 'react';
import { useSearchParams } from 'wouter';

import type { RunSummary } from '../api/previews';
import { useRuns } from '../state/queries';

/** The run in the address, else the newest; and a function to choose another. */
export function useChosenRun(project: string) {
  const [params, setParams] = useSearchParams();
  const { data, isPending } = useRuns(project);
  const runs = useMemo(() => [...(data ?? [])].sort((a, b) => b.created - a.created), [data]);
  const named = params.get('run') ?? undefined;
  const run: RunSummary | undefined = runs.find((one) => one.id === named) ?? runs[0];
  const choose = (id: string) => setParams({ run: id }, { replace: true });
  return { runs, run, named, choose, isPending };
}

export const tabAddress = (project: string, room: string, run: string): string =>
  `/projects/${project}/${room}?run=${run}`;
