// Gaussians on the screen by the rule of training and of `evaluate`: Spark's own differs beside the image.
//
// Spark drops gaussians whose centres lie more than 0.4 half images outside, and its affine approximation of the
// perspective grows without bound towards there. The reference [Kerbl 2023] drops none, and holds the slopes of the
// approximation 0.3 half images outside.

import { SparkRenderer, type SparkRendererOptions } from '@sparkjsdev/spark';

const SLOPE_MARGIN = 0.3; // half images
const EVERYWHERE = 1e9; // half images: no centre is too far outside
const ALPHA_MIN = 1 / 255; // fainter pairs of gaussian and pixel are not drawn
const OPAQUE_REACH = Math.sqrt(2 * Math.log(1 / ALPHA_MIN)); // standard deviations at which an opaque one fades out
export const LARGEST_RADIUS = 1e5; // pixels: none is too large

const FREE_SLOPES = 'vec2 J2 = -(J1 * viewCenter.xy) * invZ;';
const HELD_SLOPES = `
    vec2 middle = vec2(projectionMatrix[2][0], projectionMatrix[2][1]);
    vec2 zoom = vec2(projectionMatrix[0][0], projectionMatrix[1][1]);
    float limit = ${(1 + SLOPE_MARGIN).toFixed(2)};
    vec2 slopes = clamp(-viewCenter.xy * invZ, (middle - limit) / zoom, (middle + limit) / zoom);
    vec2 J2 = J1 * slopes;`;

/** Spark that draws each gaussian as training did. Throws an error if this Spark's shader is not the one known. */
export function referenceRenderer(options: SparkRendererOptions): SparkRenderer {
  const spark = new SparkRenderer({
    clipXY: EVERYWHERE,
    maxStdDev: OPAQUE_REACH,
    minAlpha: ALPHA_MIN,
    maxPixelRadius: LARGEST_RADIUS,
    sortRadial: false, // by depth, as in training
    accumExtSplats: true, // half floats would move splats by half a pixel
    ...options,
  });
  const { vertexShader } = spark.material;
  if (!vertexShader.includes(FREE_SLOPES)) throw new Error("Spark's projection is not the one known here.");
  spark.material.vertexShader = vertexShader.replace(FREE_SLOPES, HELD_SLOPES);
  return spark;
}
