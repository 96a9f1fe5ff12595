// Loads splats for Spark, and styles them: crop box, points, depth.

import { dyno, modifiers, SplatFileType, SplatMesh, type SparkRenderer } from '@sparkjsdev/spark';
import { type Camera, Vector3 } from 'three';

import type { Vector } from '../../geometry/vector';
import type { Box } from '../../geometry/cropBox';
import { MAX_RADIUS_PX, OPAQUE_REACH } from './projection';

const POINT_CUTOFF_SIGMAS = Math.sqrt(8);

export type Look = 'splats' | 'points' | 'depth';

const FAR = 1e9;
const POINT_RADIUS_PX = 2.2;
const LOW_PASS_PX2 = 0.3; // variance, as in training
const MIN_PICK_OPACITY = 0.1; // minimum opacity for picking

/** The style shared by all meshes of a viewer, so that newer checkpoints look the same. */
export class SplatStyle {
  private readonly low = new dyno.DynoVec3({ value: new Vector3(-FAR, -FAR, -FAR) });
  private readonly high = new dyno.DynoVec3({ value: new Vector3(FAR, FAR, FAR) });
  private readonly solid = new dyno.DynoFloat({ value: 0 });
  private readonly near = new dyno.DynoFloat({ value: 0 });
  private readonly far = new dyno.DynoFloat({ value: 1 });
  private look: Look = 'splats';

  /** `antialiased`: whether training used the energy-preserving low pass of Mip-Splatting. */
  constructor(
    private readonly spark: SparkRenderer,
    private readonly antialiased: boolean,
  ) {
    this.show('splats', []);
  }

  show(look: Look, meshes: SplatMesh[]): void {
    this.look = look;
    this.solid.value = look === 'points' ? 1 : 0;
    this.spark.maxPixelRadius = look === 'points' ? POINT_RADIUS_PX : MAX_RADIUS_PX;
    this.spark.maxStdDev = look === 'points' ? POINT_CUTOFF_SIGMAS : OPAQUE_REACH;
    this.spark.blurAmount = this.antialiased && look !== 'points' ? LOW_PASS_PX2 : 0;
    this.spark.preBlurAmount = look === 'points' ? 1 : this.antialiased ? 0 : LOW_PASS_PX2;
    for (const mesh of meshes) this.dress(mesh);
  }

  crop(box: Box | null, meshes: SplatMesh[]): void {
    this.low.value.set(...(box?.[0] ?? ([-FAR, -FAR, -FAR] as Vector)));
    this.high.value.set(...(box?.[1] ?? ([FAR, FAR, FAR] as Vector)));
    for (const mesh of meshes) mesh.updateVersion();
  }

  /** Sets the depth range of the grey map to the extent of the scene from this camera. */
  updateDepthRange(camera: Camera, centre: Vector, diagonal: number): void {
    const distance = camera.position.distanceTo(new Vector3(...centre));
    this.near.value = Math.max(diagonal / 100, distance - diagonal / 2);
    this.far.value = distance + diagonal / 2;
  }

  dress(mesh: SplatMesh): void {
    const depth = this.look === 'depth';
    mesh.enableWorldToView = depth;
    mesh.objectModifiers = [this.cropModifier()];
    mesh.worldModifiers = depth
      ? [
          modifiers.makeDepthColorModifier(
            mesh.context.worldToView,
            this.near,
            this.far,
            dyno.dynoConst('bool', true),
          ),
        ]
      : undefined;
    mesh.updateGenerator();
  }

  private cropModifier() {
    const { low, high, solid } = this;
    return dyno.dynoBlock({ gsplat: dyno.Gsplat }, { gsplat: dyno.Gsplat }, ({ gsplat }) => ({
      gsplat: cropDyno.apply({ gsplat, low, high, solid }).gsplat,
    }));
  }
}

const cropDyno = new dyno.Dyno({
  inTypes: { gsplat: dyno.Gsplat, low: 'vec3', high: 'vec3', solid: 'float' },
  outTypes: { gsplat: dyno.Gsplat },
  statements: ({ inputs, outputs }) =>
    dyno.unindentLines(`
      ${outputs.gsplat} = ${inputs.gsplat};
      if (any(lessThan(${inputs.gsplat}.center, ${inputs.low})) ||
          any(greaterThan(${inputs.gsplat}.center, ${inputs.high}))) {
        ${outputs.gsplat}.rgba.a = 0.0;
      } else if (${inputs.solid} > 0.0) {
        ${outputs.gsplat}.rgba.a = step(0.02, ${inputs.gsplat}.rgba.a);
      }
    `),
});

/** Fetches and decodes the splats at an address. `part` receives the progress, 0..1. */
export async function fetchSplats(
  url: string,
  signal: AbortSignal,
  part: (value: number) => void,
): Promise<SplatMesh> {
  const response = await fetch(url, { signal });
  if (!response.ok)
    throw new Error(response.status === 404 ? 'The scene no longer exists.' : response.statusText);
  const bytes = await readBody(response, part);
  const mesh = new SplatMesh({
    fileBytes: bytes,
    fileType: SplatFileType.SPZ,
    extSplats: true, // half floats would move splats by a hundredth of a unit in a large scene
    minRaycastOpacity: MIN_PICK_OPACITY,
  });
  try {
    await mesh.initialized;
  } catch {
    throw new Error('The scene file cannot be decoded.');
  }
  if (signal.aborted) {
    mesh.dispose();
    throw new DOMException('cancelled', 'AbortError');
  }
  return mesh;
}

async function readBody(response: Response, part: (value: number) => void): Promise<Uint8Array> {
  const totalBytes = Number(response.headers.get('content-length'));
  if (!response.body || !totalBytes) return new Uint8Array(await response.arrayBuffer());
  const chunks: Uint8Array[] = [];
  let receivedBytes = 0;
  const reader = response.body.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    chunks.push(next.value);
    receivedBytes += next.value.length;
    part(Math.min(1, receivedBytes / totalBytes));
  }
  const bytes = new Uint8Array(receivedBytes);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return bytes;
}
