// Display options: what is drawn, by which renderer, on which background.

import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { formatCount, formatDuration } from '../../lib/format';
import type { RunPreview } from '../../api/previews';
import { SegmentedControl } from '../../forms/SegmentedControl';

export type Picture = 'splats' | 'points' | 'depth' | 'server-rgb' | 'server-depth' | 'server-normal';
export type Background = 'black' | 'white';

export function LookPanel({
  shown,
  left,
  onAll,
  picture,
  onPicture,
  background,
  onBackground,
}: {
  shown: RunPreview;
  left: number; // parts of a large scene that are not drawn yet
  onAll: () => void;
  picture: Picture;
  onPicture: (picture: Picture) => void;
  background: Background;
  onBackground: (background: Background) => void;
}) {
  return (
    <Panel title="Display">
      <div className="flex flex-col gap-4">
        {shown.parts.length > 0 && (
          <SegmentedControl
            name="Browser renderer"
            options={[
              { value: 'splats', label: 'Splats' },
              { value: 'points', label: 'Points' },
              { value: 'depth', label: 'Depth' },
            ]}
            value={picture}
            onChange={onPicture}
          />
        )}
        <SegmentedControl
          name="Server renderer"
          options={[
            { value: 'server-rgb', label: 'Colour' },
            { value: 'server-depth', label: 'Depth' },
            { value: 'server-normal', label: 'Normals' },
          ]}
          value={picture}
          onChange={onPicture}
        />
        <SegmentedControl
          name="Background"
          options={[
            { value: 'black', label: 'Black' },
            { value: 'white', label: 'White' },
          ]}
          value={background}
          onChange={onBackground}
        />
        <p className="text-xs text-soft">
          {shown.count !== null && `${formatCount(shown.count)} gaussians, `}step {formatCount(shown.step)},
          trained for {formatDuration(shown.seconds)}
          {shown.finished ? '' : ' so far'}
        </p>
        {left > 0 && (
          <p className="flex items-center justify-between gap-2 text-xs text-soft">
            This device is slow, so it draws the largest parts only: {shown.parts.length - left} of{' '}
            {shown.parts.length}.
            <Button small variant="quiet" onClick={onAll}>
              Draw all
            </Button>
          </p>
        )}
      </div>
    </Panel>
  );
}
