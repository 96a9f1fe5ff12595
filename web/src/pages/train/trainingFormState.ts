// The state of the training form, and its request.

import type { Schema, TrainJob } from '../../api/client';
import { changedValues, type Entry, readEntry, type Shape } from '../../forms/settingSchema';
import { type Budget, budgetOf, PRESETS, DEFAULT_PRESET } from './presets';

export type Method = Schema['MethodOffer'];

export interface TrainingFormState {
  budget: Budget;
  method: string | null; // null: the default
  entries: Record<string, Entry>; // changed settings of the method
  downscale: string;
  holdout: string;
  seed: string;
}

const defaultPreset = PRESETS.find((preset) => preset.id === DEFAULT_PRESET);

export const INITIAL_TRAINING: TrainingFormState = {
  budget: defaultPreset ? budgetOf(defaultPreset) : { amount: '', unit: 'seconds' },
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

export const methodOf = (state: TrainingFormState, methods: Method[]): Method | undefined =>
  methods.find((method) => (state.method === null ? method.default : method.name === state.method));

/** The settings of a method without the seed, which is a general setting. */
export const settingsOf = (method: Method | undefined) =>
  method?.settings.filter((setting) => setting.name !== 'seed') ?? [];

/** The request, with values that differ from the defaults only; errors by the server's field names. */
export function buildTrainingRequest(
  state: TrainingFormState,
  methods: Method[],
): { request: TrainJob; errors: Record<string, string> } {
  const errors: Record<string, string> = {};
  const request: TrainJob = { verb: 'train' };
  const put = (field: 'seconds' | 'steps' | keyof typeof RULES, rule: Rule, text: string) => {
    const result = readEntry(rule, text);
    if ('error' in result) errors[field] = result.error;
    else if (typeof result.value === 'number') request[field] = result.value;
  };
  put(state.budget.unit, BUDGET[state.budget.unit], state.budget.amount);
  put('downscale', RULES.downscale, state.downscale);
  put('holdout', RULES.holdout, state.holdout);
  put('seed', RULES.seed, state.seed);
  const method = methodOf(state, methods);
  if (method && !method.default) request.method = method.name;
  const changed = changedValues(settingsOf(method), state.entries);
  for (const [name, error] of Object.entries(changed.errors)) errors[`settings.${name}`] = error;
  if (Object.keys(changed.values).length) request.settings = changed.values;
  return { request, errors };
}
