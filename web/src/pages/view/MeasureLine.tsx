// The measured line, drawn over the scene.

import { Vector3 } from 'three';

import type { Vector } from '../../geometry/vector';
import { formatLength } from '../../geometry/length';
import type { CameraControls } from './cameraControls';
import type { Measure } from './useMeasure';
import { useCameraVersion } from './useCameraControls';

/** The position of a point on the canvas, in percent; null behind the camera. */
function place(controls: CameraControls, point: Vector): { x: number; y: number } | null {
  const at = new Vector3(...point).applyMatrix4(controls.camera.matrixWorldInverse);
  if (at.z > -controls.camera.near) return null;
  at.applyMatrix4(controls.camera.projectionMatrix);
  return { x: 50 * (1 + at.x), y: 50 * (1 - at.y) };
}

export function MeasureLine({ controls, measure }: { controls: CameraControls; measure: Measure }) {
  useCameraVersion(controls);
  controls.camera.updateMatrixWorld();
  const [a, b] = measure.ends.map((end) => place(controls, end));
  return (
    <div className="pointer-events-none absolute inset-0" data-testid="measure">
      <svg className="absolute inset-0 size-full text-sun" aria-hidden>
        {a && b && (
          <line
            x1={`${a.x}%`}
            y1={`${a.y}%`}
            x2={`${b.x}%`}
            y2={`${b.y}%`}
            stroke="currentColor"
            strokeWidth={2.5}
          />
        )}
        {[a, b].map(
          (end, i) =>
            end && (
              <circle
                key={i}
                cx={`${end.x}%`}
                cy={`${end.y}%`}
                r={5}
                fill="currentColor"
                className="stroke-black"
                strokeWidth={1.5}
              />
            ),
        )}
      </svg>
      {measure.units !== null && a && b && (
        <span
          className="absolute -translate-x-1/2 -translate-y-full rounded-md bg-sun px-2 py-0.5 text-xs font-semibold text-sun-ink shadow"
          style={{ left: `${(a.x + b.x) / 2}%`, top: `calc(${(a.y + b.y) / 2}% - 8px)` }}
        >
          {formatLength(measure.units, measure.metres)}
        </span>
      )}
      {measure.ends.length !== 2 && (
        <span className="absolute top-1/2 left-1/2 size-5 -translate-1/2 rounded-full border border-sun" />
      )}
    </div>
  );
}
