import type { TabProps } from '../project/ProjectPage';

export function TrainTab({ project }: TabProps) {
  return <p>{project}</p>;
}
