// Methods and their settings in words.

const METHODS: Record<string, [name: string, what: string]> = {
  splat: ['Gaussian splats', 'The best pictures in the least time. Any splat viewer can show the result.'],
  ngp: ['Instant NGP', 'A volume with smooth depths, whose size does not grow with the scene.'],
  nerf: ['NeRF', 'The original, slow and small. To learn from and to compare with.'],
};

export const methodName = (method: string): string => METHODS[method]?.[0] ?? method;
export const methodWords = (method: string): string => METHODS[method]?.[1] ?? '';

const WORDS: Record<string, string> = { lr: 'learning rate', sh: 'SH', ssim: 'SSIM', cap: 'most gaussians' };

/** lr_mean_end -> Learning rate, mean end */
export function settingName(name: string): string {
  const [first = '', ...rest] = name.split('_');
  const known = WORDS[first] ?? first;
  const more = rest.map((word) => WORDS[word] ?? word).join(' ');
  const text = more ? `${known}${first === 'lr' ? ', ' : ' '}${more}` : known;
  return text.charAt(0).toUpperCase() + text.slice(1);
}
