// Methods in words.

const METHODS: Record<string, [name: string, what: string]> = {
  splat: ['Gaussian splats', 'The best pictures in the least time. Any splat viewer can show the result.'],
  ngp: ['Instant NGP', 'A volume with smooth depths, whose size does not grow with the scene.'],
  nerf: ['NeRF', 'The original, slow and small. To learn from and to compare with.'],
};

export const methodName = (method: string): string => METHODS[method]?.[0] ?? method;
export const methodWords = (method: string): string => METHODS[method]?.[1] ?? '';
