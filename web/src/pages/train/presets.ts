// Presets of the training time.

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
    time: 'About 30 seconds',
    expect: 'A first check of the photos. Edges are soft.',
  },
  {
    id: 'good',
    name: 'Good',
    seconds: 120,
    time: 'About 2 minutes',
    expect: 'Sharp for most scenes. Recommended.',
  },
  {
    id: 'best',
    name: 'Best',
    seconds: 600,
    time: 'About 10 minutes',
    expect: 'Fine texture and thin structures. For final results.',
  },
];

export const DEFAULT_PRESET = 'good' satisfies Preset['id'];

/** Training stops after this many seconds or steps; `amount` is the text of the field. */
export interface Budget {
  amount: string;
  unit: 'seconds' | 'steps';
}

export const budgetOf = (preset: Preset): Budget => ({ amount: String(preset.seconds), unit: 'seconds' });

export const presetOf = (budget: Budget): Preset | undefined =>
  PRESETS.find((one) => budget.unit === 'seconds' && Number(budget.amount) === one.seconds);
