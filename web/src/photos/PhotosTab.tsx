import type { TabProps } from '../project/ProjectPage';

export function PhotosTab({ project }: TabProps) {
  return <p>{project}</p>;
}
