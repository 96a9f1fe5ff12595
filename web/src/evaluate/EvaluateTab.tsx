import type { TabProps } from '../project/ProjectPage';

export function EvaluateTab({ project }: TabProps) {
  return <p>{project}</p>;
}
