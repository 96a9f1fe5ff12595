import { type Capture, captureFile, projectFile } from '../api/shown';
import { Dialog } from '../design/Dialog';
import { leaf } from './Photos';

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
      {known && (
        <p className="mt-3 text-center text-xs text-soft">
          {known.width} × {known.height} pixels, focal length {known.focal[0].toFixed(0)} px
          {known.held_out && ', kept from the training to judge the result by'}
        </p>
      )}
    </Dialog>
  );
}
