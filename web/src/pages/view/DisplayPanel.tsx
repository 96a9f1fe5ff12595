// Display options: what is drawn, by which renderer, on which background.

import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { formatCount, formatDuration } from '../../lib/format';
import type { RunPreview } from '../../api/previews';
import { SegmentedControl } from '../../forms/SegmentedControl';

export type Display = 'splats' | 'points' | 'depth' | 'server-rgb' | 'server-depth' | 'server-normal';
export type Background = 'black' | 'white';

export function DisplayPanel({
  preview,
  left,
  onAll,
  display,
  onDisplay,
  background,
  onBackground,
}: {
  preview: RunPreview;
  left: number; // parts of a large scene that are not drawn yet
  onAll: () => void;
  display: Display;
  onDisplay: (display: Display) => void;
  background: Background;
  onBackground: (background: Background) => void;
}) {
  return (
    <Panel title="Display">
      <div className="flex flex-col gap-4">
        {preview.parts.length > 0 && (
          <SegmentedControl
            name="Browser renderer"
            options={[
              { value: 'splats', label: 'Splats' },
              { value: 'points', label: 'Points' },
              { value: 'depth', label: 'Depth' },
            ]}
            value={display}
            onChange={onDisplay}
          />
        )}
        <SegmentedControl
          name="Server renderer"
          options={[
            { value: 'server-rgb', label: 'Colour' },
            { value: 'server-depth', label: 'Depth' },
            { value: 'server-normal', label: 'Normals' },
          ]}
          value={display}
          onChange={onDisplay}
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
          {preview.count !== null && `${formatCount(preview.count)} gaussians, `}step{' '}
          {formatCount(preview.step)}, trained for {formatDuration(preview.seconds)}
          {preview.finished ? '' : ' so far'}
        </p>
        {left > 0 && (
          <p className="flex items-center justify-between gap-2 text-xs text-soft">
            This device is slow, so it draws the largest parts only: {preview.parts.length - left} of{' '}
            {preview.parts.length}.
            <Button small variant="quiet" onClick={onAll}>
              Draw all
            </Button>
          </p>
        )}
      </div>
    </Panel>
  );
}
