// How long to train, for people who do not want to think about it.

export interface Preset {
  id: 'quick' | 'good' | 'best';
  name: string;
  seconds: number;
  time: string;
  expect: string;
}

export const PRESETS: Preset[] = [
  {
    id: 'quick',
    name: 'Quick',
    seconds: 30,
    time: 'Takes about 30 seconds',
    expect:
      'A first look: shapes and colours are there, edges are still soft. Tells whether the photos are good.',
  },
  {
    id: 'good',
    name: 'Good',
    seconds: 120,
    time: 'Takes about 2 minutes',
    expect: 'Sharp for most scenes, and fine to share. The one to begin with.',
  },
  {
    id: 'best',
    name: 'Best',
    seconds: 600,
    time: 'Takes about 10 minutes',
    expect: 'Fine texture and thin things too. For the result that you keep.',
  },
];

export const USUAL = 'good' satisfies Preset['id'];

/** Training stops after so many seconds or steps; the amount is text, as it stands in its field. */
export interface Budget {
  amount: string;
  unit: 'seconds' | 'steps';
}

export const budgetOf = (preset: Preset): Budget => ({ amount: String(preset.seconds), unit: 'seconds' });

export const presetOf = (budget: Budget): Preset | undefined =>
  PRESETS.find((one) => budget.unit === 'seconds' && Number(budget.amount) === one.seconds);
