import type { TabProps } from '../project/ProjectPage';

export function ViewTab({ project }: TabProps) {
  return <p>{project}</p>;
}
