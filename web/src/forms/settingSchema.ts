// A setting's JSON Schema as something that a form can show, and what is typed there as a value again.
// The server refuses what is wrong in any case; this says so before it is asked.

import type { Schema } from '../api/client';

export type Setting = Schema['Setting'];
export type Value = NonNullable<Schema['TrainJob']['settings']>[string];
export type Entry = string | boolean | string[]; // as it stands in the form

export type Shape = { empty: boolean } & (
  | { kind: 'switch' }
  | { kind: 'choice'; options: (string | number)[] }
  | { kind: 'number'; whole: boolean; least?: number; most?: number }
  | { kind: 'list'; item: Shape; least: number; most: number }
  | { kind: 'text' }
);

type Form = Record<string, unknown>;
const isForm = (it: unknown): it is Form => typeof it === 'object' && it !== null && !Array.isArray(it);
const numeric = (it: unknown): number | undefined => (typeof it === 'number' ? it : undefined);

export function shapeOf(form: Form): Shape {
  if (Array.isArray(form.anyOf)) {
    const some = form.anyOf.filter(isForm);
    const full = some.filter((one) => one.type !== 'null');
    const only = full.length === 1 ? full[0] : undefined;
    const shape: Shape = only ? shapeOf(only) : { kind: 'text', empty: false };
    return { ...shape, empty: shape.empty || full.length < some.length };
  }
  if (Array.isArray(form.enum)) {
    const options = form.enum.filter((it) => typeof it === 'string' || typeof it === 'number');
    return { kind: 'choice', options, empty: form.enum.includes(null) };
  }
  if (form.type === 'boolean') return { kind: 'switch', empty: false };
  if (form.type === 'integer' || form.type === 'number') return numberOf(form);
  if (form.type === 'array') return listOf(form);
  return { kind: 'text', empty: false };
}

function numberOf(form: Form): Shape {
  const least = numeric(form.minimum);
  const most = numeric(form.maximum);
  return {
    kind: 'number',
    whole: form.type === 'integer',
    ...(least === undefined ? {} : { least }),
    ...(most === undefined ? {} : { most }),
    empty: false,
  };
}

function listOf(form: Form): Shape {
  const least = numeric(form.minItems) ?? 0;
  const item = shapeOf(isForm(form.items) ? form.items : {});
  return { kind: 'list', item, least, most: numeric(form.maxItems) ?? Math.max(least, 1), empty: false };
}

/** What stands in the form for a value. */
export function entryOf(value: unknown): Entry {
  if (typeof value === 'boolean') return value;
  if (Array.isArray(value)) return value.map((one) => (one === null ? '' : String(one)));
  return value === null || value === undefined ? '' : String(value);
}

export type Read = { value: Value } | { fault: string };

export function read(shape: Shape, entry: Entry): Read {
  if (shape.kind === 'switch') return { value: entry === true };
  if (shape.kind === 'list') return readList(shape, entry);
  const text = typeof entry === 'string' ? entry.trim() : '';
  if (text === '' && shape.empty) return { value: null };
  if (shape.kind === 'number') return readNumber(shape, text);
  if (shape.kind === 'choice') {
    const found = shape.options.find((one) => String(one) === text);
    return found === undefined ? { fault: 'Choose one of these' } : { value: found };
  }
  return { value: text };
}

export function readNumber(rule: { whole: boolean; least?: number; most?: number }, text: string): Read {
  const value = Number(text);
  if (text === '' || !Number.isFinite(value)) return { fault: 'Must be a number' };
  if (rule.whole && !Number.isInteger(value)) return { fault: 'Must be a whole number' };
  if (rule.least !== undefined && value < rule.least) return { fault: `Must be at least ${rule.least}` };
  if (rule.most !== undefined && value > rule.most) return { fault: `Must be at most ${rule.most}` };
  return { value };
}

function readList(shape: Shape & { kind: 'list' }, entry: Entry): Read {
  const texts = Array.isArray(entry) ? entry : [];
  if (shape.empty && texts.every((text) => text.trim() === '')) return { value: null };
  const values: (string | number | boolean | null)[] = [];
  for (const text of texts) {
    const one = read(shape.item, text);
    if ('fault' in one) return one;
    if (!Array.isArray(one.value)) values.push(one.value);
  }
  return { value: values };
}

/** What differs from the defaults, and what is wrong, by the names of the settings. */
export function changes(settings: Setting[], entries: Record<string, Entry>) {
  const values: Record<string, Value> = {};
  const faults: Record<string, string> = {};
  for (const setting of settings) {
    const entry = entries[setting.name];
    if (entry === undefined) continue;
    const found = read(shapeOf(setting.form), entry);
    if ('fault' in found) faults[setting.name] = found.fault;
    else if (JSON.stringify(found.value) !== JSON.stringify(setting.default))
      values[setting.name] = found.value;
  }
  return { values, faults };
}
