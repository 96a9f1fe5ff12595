import type { TabProps } from '../project/ProjectPage';

export function ExportTab({ project }: TabProps) {
  return <p>{project}</p>;
}
