import { Link } from 'wouter';

import { type Capture, captureFile, projectFile } from '../../api/previews';
import { useRuns } from '../../state/queries';
import { Dialog } from '../../design/Dialog';
import { toHash } from '../../geometry/camera';
import { leaf } from './PhotoGrid';
import { viewOf } from './photoCamera';

/** One photo, large. Frames of a video have no file of their own: of them there is the thumbnail alone. */
export function Photo({
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
  const known = capture?.images.find((image) => image.name === name || leaf(image.name) === leaf(name ?? ''));
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
            href={`/projects/${project}/view${toHash(viewOf(known, capture))}`}
            className="font-medium text-sun-text hover:underline"
          >
            Stand here in the scene
          </Link>
        </p>
      )}
      {known && (
        <p className="mt-3 text-center text-xs text-soft">
          {known.width} × {known.height} pixels, focal length {known.focal[0].toFixed(0)} px
          {known.held_out && ', kept from the training to judge the result by'}
        </p>
      )}
    </Dialog>
  );
}
