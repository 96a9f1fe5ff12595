// The options of a video.

import { Field, INPUT } from '../../forms/Field';
import { type VideoFormState, SIZES } from './videoFormState';

export function VideoOptions({
  video,
  errors,
  onChange,
}: {
  video: VideoFormState;
  errors: Record<string, string>;
  onChange: (video: VideoFormState) => void;
}) {
  const change = (part: Partial<VideoFormState>) => onChange({ ...video, ...part });
  return (
    <div className="grid grid-cols-2 gap-4 sm:grid-cols-4">
      <Field name="Camera path">
        {(wiring) => (
          <select
            {...wiring}
            className={INPUT}
            value={video.path}
            onChange={(event) => change({ path: event.target.value === 'spiral' ? 'spiral' : 'orbit' })}
          >
            <option value="orbit">Orbit</option>
            <option value="spiral">Spiral</option>
          </select>
        )}
      </Field>
      <Field name="Size" error={errors.size}>
        {(wiring) => (
          <select
            {...wiring}
            className={INPUT}
            value={video.size}
            onChange={(event) => change({ size: event.target.value })}
          >
            {SIZES.map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        )}
      </Field>
      <Field name="Seconds" error={errors.seconds ?? errors.frames}>
        {(wiring) => (
          <input
            {...wiring}
            type="number"
            min={0.5}
            step={0.5}
            className={INPUT}
            value={video.seconds}
            onChange={(event) => change({ seconds: event.target.value })}
          />
        )}
      </Field>
      <Field name="Frame rate" error={errors.fps}>
        {(wiring) => (
          <input
            {...wiring}
            type="number"
            min={1}
            max={240}
            className={INPUT}
            value={video.fps}
            onChange={(event) => change({ fps: event.target.value })}
          />
        )}
      </Field>
    </div>
  );
}
