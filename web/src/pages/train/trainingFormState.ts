// What stands in the form that begins a training, and the request that it makes.

import type { Schema, TrainJob } from '../../api/client';
import { changes, type Entry, read, type Shape } from '../../forms/settingSchema';
import { type Budget, budgetOf, PRESETS, USUAL } from './presets';

export type Method = Schema['MethodOffer'];

export interface Wish {
  budget: Budget;
  method: string | null; // null: the usual one
  entries: Record<string, Entry>; // settings of that method which somebody touched
  downscale: string;
  holdout: string;
  seed: string;
}

const usual = PRESETS.find((one) => one.id === USUAL);

export const NEW: Wish = {
  budget: usual ? budgetOf(usual) : { amount: '', unit: 'seconds' },
  method: null,
  entries: {},
  downscale: '',
  holdout: '',
  seed: '',
};

type Rule = Shape & { kind: 'number' };
const RULES: Record<'downscale' | 'holdout' | 'seed', Rule> = {
  downscale: { kind: 'number', whole: false, least: 1, most: 64, empty: true },
  holdout: { kind: 'number', whole: true, least: 0, most: 1_000_000, empty: true },
  seed: { kind: 'number', whole: true, least: 0, most: 2 ** 31 - 1, empty: true },
};
const BUDGET: Record<Budget['unit'], Rule> = {
  seconds: { kind: 'number', whole: false, least: 1, most: 10_000_000, empty: false },
  steps: { kind: 'number', whole: true, least: 1, most: 1_000_000_000, empty: false },
};

export const methodOf = (wish: Wish, methods: Method[]): Method | undefined =>
  methods.find((one) => (wish.method === null ? one.default : one.name === wish.method));

/** The seed stands among the general settings. */
export const settingsOf = (method: Method | undefined) =>
  method?.settings.filter((one) => one.name !== 'seed') ?? [];

/** Only what differs from what would be chosen anyway is asked for. Faults go by field, as the server names them. */
export function request(wish: Wish, methods: Method[]): { asked: TrainJob; faults: Record<string, string> } {
  const faults: Record<string, string> = {};
  const asked: TrainJob = { verb: 'train' };
  const put = (field: 'seconds' | 'steps' | keyof typeof RULES, rule: Rule, text: string) => {
    const found = read(rule, text);
    if ('fault' in found) faults[field] = found.fault;
    else if (typeof found.value === 'number') asked[field] = found.value;
  };
  put(wish.budget.unit, BUDGET[wish.budget.unit], wish.budget.amount);
  put('downscale', RULES.downscale, wish.downscale);
  put('holdout', RULES.holdout, wish.holdout);
  put('seed', RULES.seed, wish.seed);
  const method = methodOf(wish, methods);
  if (method && !method.default) asked.method = method.name;
  const changed = changes(settingsOf(method), wish.entries);
  for (const [name, fault] of Object.entries(changed.faults)) faults[`settings.${name}`] = fault;
  if (Object.keys(changed.values).length) asked.settings = changed.values;
  return { asked, faults };
}
