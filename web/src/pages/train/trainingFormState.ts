// The state of the training form, and its request.

import type { Schema, TrainJob } from '../../api/client';
import { changedValues, type Entry, readEntry, type Shape } from '../../forms/settingSchema';
import { type Budget, budgetOf, PRESETS, USUAL } from './presets';

export type Method = Schema['MethodOffer'];

export interface Wish {
  budget: Budget;
  method: string | null; // null: the default
  entries: Record<string, Entry>; // changed settings of the method
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
  downscale: { kind: 'number', whole: false, min: 1, max: 64, empty: true },
  holdout: { kind: 'number', whole: true, min: 0, max: 1_000_000, empty: true },
  seed: { kind: 'number', whole: true, min: 0, max: 2 ** 31 - 1, empty: true },
};
const BUDGET: Record<Budget['unit'], Rule> = {
  seconds: { kind: 'number', whole: false, min: 1, max: 10_000_000, empty: false },
  steps: { kind: 'number', whole: true, min: 1, max: 1_000_000_000, empty: false },
};

export const methodOf = (wish: Wish, methods: Method[]): Method | undefined =>
  methods.find((one) => (wish.method === null ? one.default : one.name === wish.method));

/** The settings of a method without the seed, which is a general setting. */
export const settingsOf = (method: Method | undefined) =>
  method?.settings.filter((one) => one.name !== 'seed') ?? [];

/** The request, with values that differ from the defaults only; errors by the server's field names. */
export function request(wish: Wish, methods: Method[]): { asked: TrainJob; errors: Record<string, string> } {
  const errors: Record<string, string> = {};
  const asked: TrainJob = { verb: 'train' };
  const put = (field: 'seconds' | 'steps' | keyof typeof RULES, rule: Rule, text: string) => {
    const found = readEntry(rule, text);
    if ('error' in found) errors[field] = found.error;
    else if (typeof found.value === 'number') asked[field] = found.value;
  };
  put(wish.budget.unit, BUDGET[wish.budget.unit], wish.budget.amount);
  put('downscale', RULES.downscale, wish.downscale);
  put('holdout', RULES.holdout, wish.holdout);
  put('seed', RULES.seed, wish.seed);
  const method = methodOf(wish, methods);
  if (method && !method.default) asked.method = method.name;
  const changed = changedValues(settingsOf(method), wish.entries);
  for (const [name, error] of Object.entries(changed.errors)) errors[`settings.${name}`] = error;
  if (Object.keys(changed.values).length) asked.settings = changed.values;
  return { asked, errors };
}
