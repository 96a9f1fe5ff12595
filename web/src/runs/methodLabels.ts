// Names and descriptions of methods.

const METHODS: Record<string, [name: string, what: string]> = {
  splat: ['Gaussian splats', 'The best images in the least time. Opens in any splat viewer.'],
  ngp: ['Instant NGP', 'A volume with smooth depth and a fixed size.'],
  nerf: ['NeRF', 'The original method: slow and small. For comparison.'],
};

export const methodName = (method: string): string => METHODS[method]?.[0] ?? method;
export const methodDescription = (method: string): string => METHODS[method]?.[1] ?? '';
