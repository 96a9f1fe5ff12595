import { Link } from 'wouter';

import { type Capture, captureFile, projectFile } from '../../api/previews';
import { useRuns } from '../../state/queries';
import { Dialog } from '../../design/Dialog';
import { toHash } from '../../geometry/camera';
import { baseName } from './PhotoGrid';
import { photoView } from './photoCamera';

/** A photo at full size. Video frames have no file of their own; their thumbnail is shown. */
export function PhotoDialog({
  project,
  name,
  capture,
  onClose,
}: {
  project: string;
  name: string | null;
  capture: Capture | null;
  onClose: () => void;
}) {
  const known = capture?.images.find(
    (image) => image.name === name || baseName(image.name) === baseName(name ?? ''),
  );
  const runs = useRuns(project);
  const small = known ? captureFile(project, known.thumb) : undefined;
  return (
    <Dialog open={name !== null} onClose={onClose} title={name ?? ''} wide>
      {name !== null && (
        <img
          src={projectFile(project, name)}
          alt={name}
          className="mx-auto max-h-[70dvh] rounded-md"
          onError={(event) => {
            if (small && !event.currentTarget.src.endsWith(small)) event.currentTarget.src = small;
          }}
        />
      )}
      {known && capture && runs.data && runs.data.length > 0 && (
        <p className="mt-3 text-center text-sm">
          <Link
            href={`/projects/${project}/view${toHash(photoView(known, capture))}`}
            className="font-medium text-sun-text hover:underline"
          >
            View the scene from here
          </Link>
        </p>
      )}
      {known && (
        <p className="mt-3 text-center text-xs text-soft">
          {known.width} × {known.height} pixels, focal length {known.focal[0].toFixed(0)} px
          {known.held_out && ', held out from training'}
        </p>
      )}
    </Dialog>
  );
}
