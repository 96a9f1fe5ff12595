// What to see of the scene, and before what.

import { Button } from '../../design/Button';
import { Panel } from '../../design/Card';
import { count, duration } from '../../lib/format';
import type { ShownRun } from '../../api/previews';
import { Choice } from '../../forms/SegmentedControl';

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
  shown: ShownRun;
  left: number; // parts of a large scene that are not drawn
  onAll: () => void;
  picture: Picture;
  onPicture: (picture: Picture) => void;
  background: Background;
  onBackground: (background: Background) => void;
}) {
  return (
    <Panel title="Picture">
      <div className="flex flex-col gap-4">
        {shown.parts.length > 0 && (
          <Choice
            name="Drawn by this browser"
            options={[
              { value: 'splats', label: 'Splats' },
              { value: 'points', label: 'Points' },
              { value: 'depth', label: 'Depth' },
            ]}
            value={picture}
            onChange={onPicture}
          />
        )}
        <Choice
          name="As the server renders it"
          options={[
            { value: 'server-rgb', label: 'Colour' },
            { value: 'server-depth', label: 'Depth' },
            { value: 'server-normal', label: 'Normals' },
          ]}
          value={picture}
          onChange={onPicture}
        />
        <Choice
          name="Background"
          options={[
            { value: 'black', label: 'Black' },
            { value: 'white', label: 'White' },
          ]}
          value={background}
          onChange={onBackground}
        />
        <p className="text-xs text-soft">
          {shown.count !== null && `${count(shown.count)} gaussians, `}step {count(shown.step)}, trained for{' '}
          {duration(shown.seconds)}
          {shown.finished ? '' : ' so far'}
        </p>
        {left > 0 && (
          <p className="flex items-center justify-between gap-2 text-xs text-soft">
            This device is slow with so many, so it draws what covers most: {shown.parts.length - left} of{' '}
            {shown.parts.length} parts.
            <Button small look="quiet" onClick={onAll}>
              Draw all
            </Button>
          </p>
        )}
      </div>
    </Panel>
  );
}
