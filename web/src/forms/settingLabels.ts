// Labels of settings.

const WORDS: Record<string, string> = {
  lr: 'learning rate',
  sh: 'SH',
  ssim: 'SSIM',
  cap: 'Gaussian limit',
  faces: 'triangles',
  part: 'smallest component',
  jpeg: 'JPEG',
};

/** lr_mean_end -> Learning rate, mean end */
export function settingLabel(name: string): string {
  const [first = '', ...rest] = name.split('_');
  const known = WORDS[first] ?? first;
  const more = rest.map((word) => WORDS[word] ?? word).join(' ');
  const text = more ? `${known}${first === 'lr' ? ', ' : ' '}${more}` : known;
  return text.charAt(0).toUpperCase() + text.slice(1);
}
