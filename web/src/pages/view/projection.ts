// Projects gaussians as training and `evaluate` do; Spark's own projection differs outside the image.
//
// Spark drops gaussians whose centres are more than 0.4 half images outside, and its affine approximation of the
// perspective grows without bound towards there. The reference [Kerbl 2023] drops none that reach the image, and holds
// the slopes of the approximation 0.3 half images outside.

import { SparkRenderer, type SparkRendererOptions } from '@sparkjsdev/spark';
import { BufferAttribute, type InstancedBufferGeometry } from 'three';

const SLOPE_MARGIN = 0.3; // half images
const EVERYWHERE = 1e9; // half images: no centre is dropped
const ALPHA_MIN = 1 / 255; // fainter pairs of gaussian and pixel are not drawn
export const OPAQUE_REACH = Math.sqrt(2 * Math.log(1 / ALPHA_MIN)); // standard deviations at which an opaque one fades out
export const MAX_RADIUS_PX = 1e5; // pixels: no gaussian is dropped

const FREE_SLOPES = 'vec2 J2 = -(J1 * viewCenter.xy) * invZ;';
const HELD_SLOPES = `
    vec2 middle = vec2(projectionMatrix[2][0], projectionMatrix[2][1]);
    vec2 zoom = vec2(projectionMatrix[0][0], projectionMatrix[1][1]);
    float limit = ${(1 + SLOPE_MARGIN).toFixed(2)};
    vec2 slopes = clamp(-viewCenter.xy * invZ, (middle - limit) / zoom, (middle + limit) / zoom);
    vec2 J2 = J1 * slopes;`;

// A quad ends where its gaussian fades out, and is dropped if the box around the gaussian is outside the image. Both
// change no pixel; a processor that draws would be several times slower without them.
const AXES = 'float eigenAvg = 0.5 * (a + d);';
const ONLY_VISIBLE_PIXELS = `
    if (rgba.a <= 1.0) {
        adjustedStdDev = min(adjustedStdDev, sqrt(max(0.0, 2.0 * log(rgba.a / minAlpha))));
        vSplatUv = position.xy * adjustedStdDev;
    }
    vec2 formatExtent = min(vec2(maxPixelRadius), adjustedStdDev * sqrt(vec2(a, d))) * 2.0 / scaledRenderSize;
    if (any(greaterThan(abs(clipCenter.xy / clipCenter.w) - formatExtent, vec2(1.0)))) {
        return;
    }
    ${AXES}`;

// SwiftShader draws instance after instance, each at the cost of a draw call: so each holds many quads instead of one.
const QUADS = 128; // of an instance
const CORNERS = [-1, -1, 1, -1, 1, 1, -1, 1];
const TRIANGLES = [0, 1, 2, 0, 2, 3];
const ONE_QUAD = `ivec2 orderingCoord = ivec2((gl_InstanceID >> 2) & 4095, gl_InstanceID >> 14);
    uint splatIndex = texelFetch(ordering, orderingCoord, 0)[gl_InstanceID & 3];`;
const MANY_QUADS = `int place = gl_InstanceID * ${QUADS} + int(position.z);
    if (place >= activeSplats) {
        return;
    }
    ivec2 orderingCoord = ivec2((place >> 2) & 4095, place >> 14);
    uint splatIndex = texelFetch(ordering, orderingCoord, 0)[place & 3];`;
const UNIFORM = 'uniform usampler2D ordering;';
const MANY_QUADS_UNIFORM = `uniform int activeSplats;
${UNIFORM}`;

/** Draw QUADS gaussians an instance. Returns the uniforms of its shader. */
function bundle(geometry: InstancedBufferGeometry): { activeSplats: { value: number } } {
  const corners = new Float32Array(QUADS * 4 * 3);
  const triangles = new Uint16Array(QUADS * 6);
  for (let quad = 0; quad < QUADS; quad++) {
    for (let k = 0; k < 4; k++) corners.set([...CORNERS.slice(2 * k, 2 * k + 2), quad], (quad * 4 + k) * 3);
    triangles.set(
      TRIANGLES.map((corner) => quad * 4 + corner),
      quad * 6,
    );
  }
  geometry.setAttribute('position', new BufferAttribute(corners, 3));
  geometry.setIndex(new BufferAttribute(triangles, 1));
  const activeSplats = { value: 0 };
  Object.defineProperty(geometry, 'instanceCount', {
    get: () => Math.ceil(activeSplats.value / QUADS),
    set: (count: number) => (activeSplats.value = count), // Spark sets it to the number of gaussians
  });
  return { activeSplats };
}

/** A Spark renderer with the projection of training. Throws if Spark's shader is not the expected one. */
export function referenceRenderer(options: SparkRendererOptions): SparkRenderer {
  const spark = new SparkRenderer({
    clipXY: EVERYWHERE,
    maxStdDev: OPAQUE_REACH,
    minAlpha: ALPHA_MIN,
    maxPixelRadius: MAX_RADIUS_PX,
    sortRadial: false, // by depth, as in training
    accumExtSplats: true, // half floats would move splats by half a pixel
    ...options,
  });
  let shader = spark.material.vertexShader;
  for (const [known, ours] of [
    [FREE_SLOPES, HELD_SLOPES],
    [AXES, ONLY_VISIBLE_PIXELS],
    [ONE_QUAD, MANY_QUADS],
    [UNIFORM, MANY_QUADS_UNIFORM],
  ] as const) {
    if (!shader.includes(known)) throw new Error("Spark's projection is not the one known here.");
    shader = shader.replace(known, ours);
  }
  spark.material.vertexShader = shader;
  Object.assign(spark.material.uniforms, bundle(spark.geometry as InstancedBufferGeometry));
  return spark;
}
