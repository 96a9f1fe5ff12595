// JSON Schemas of settings as form fields, and form entries as values.
// The server validates again; these checks report errors before a request is sent.

import type { Schema } from '../api/client';

export type Setting = Schema['Setting'];
export type Value = NonNullable<Schema['TrainJob']['settings']>[string];
export type Entry = string | boolean | string[]; // as typed in the form

export type Shape = { empty: boolean } & (
  | { kind: 'switch' }
  | { kind: 'choice'; options: (string | number)[] }
  | { kind: 'number'; whole: boolean; min?: number; max?: number }
  | { kind: 'list'; item: Shape; min: number; max: number }
  | { kind: 'text' }
);

type JsonSchema = Record<string, unknown>;
const isSchema = (value: unknown): value is JsonSchema =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const toNumber = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined);

export function shapeOf(schema: JsonSchema): Shape {
  if (Array.isArray(schema.anyOf)) {
    const options = schema.anyOf.filter(isSchema);
    const present = options.filter((item) => item.type !== 'null');
    const single = present.length === 1 ? present[0] : undefined;
    const shape: Shape = single ? shapeOf(single) : { kind: 'text', empty: false };
    return { ...shape, empty: shape.empty || present.length < options.length };
  }
  if (Array.isArray(schema.enum)) {
    const options = schema.enum.filter((value) => typeof value === 'string' || typeof value === 'number');
    return { kind: 'choice', options, empty: schema.enum.includes(null) };
  }
  if (schema.type === 'boolean') return { kind: 'switch', empty: false };
  if (schema.type === 'integer' || schema.type === 'number') return numberOf(schema);
  if (schema.type === 'array') return listOf(schema);
  return { kind: 'text', empty: false };
}

function numberOf(schema: JsonSchema): Shape {
  const min = toNumber(schema.minimum);
  const max = toNumber(schema.maximum);
  return {
    kind: 'number',
    whole: schema.type === 'integer',
    ...(min === undefined ? {} : { min }),
    ...(max === undefined ? {} : { max }),
    empty: false,
  };
}

function listOf(schema: JsonSchema): Shape {
  const min = toNumber(schema.minItems) ?? 0;
  const item = shapeOf(isSchema(schema.items) ? schema.items : {});
  return { kind: 'list', item, min, max: toNumber(schema.maxItems) ?? Math.max(min, 1), empty: false };
}

/** The form entry of a value. */
export function entryOf(value: unknown): Entry {
  if (typeof value === 'boolean') return value;
  if (Array.isArray(value)) return value.map((item) => (item === null ? '' : String(item)));
  return value === null || value === undefined ? '' : String(value);
}

export type ReadResult = { value: Value } | { error: string };

export function readEntry(shape: Shape, entry: Entry): ReadResult {
  if (shape.kind === 'switch') return { value: entry === true };
  if (shape.kind === 'list') return readList(shape, entry);
  const text = typeof entry === 'string' ? entry.trim() : '';
  if (text === '' && shape.empty) return { value: null };
  if (shape.kind === 'number') return readNumber(shape, text);
  if (shape.kind === 'choice') {
    const result = shape.options.find((item) => String(item) === text);
    return result === undefined ? { error: 'Choose one of the options' } : { value: result };
  }
  return { value: text };
}

export function readNumber(rule: { whole: boolean; min?: number; max?: number }, text: string): ReadResult {
  const value = Number(text);
  if (text === '' || !Number.isFinite(value)) return { error: 'Must be a number' };
  if (rule.whole && !Number.isInteger(value)) return { error: 'Must be a whole number' };
  if (rule.min !== undefined && value < rule.min) return { error: `Must be at least ${rule.min}` };
  if (rule.max !== undefined && value > rule.max) return { error: `Must be at most ${rule.max}` };
  return { value };
}

function readList(shape: Shape & { kind: 'list' }, entry: Entry): ReadResult {
  const texts = Array.isArray(entry) ? entry : [];
  if (shape.empty && texts.every((text) => text.trim() === '')) return { value: null };
  const values: (string | number | boolean | null)[] = [];
  for (const text of texts) {
    const item = readEntry(shape.item, text);
    if ('error' in item) return item;
    if (!Array.isArray(item.value)) values.push(item.value);
  }
  return { value: values };
}

/** Values that differ from the defaults, and errors, by setting name. */
export function changedValues(settings: Setting[], entries: Record<string, Entry>) {
  const values: Record<string, Value> = {};
  const errors: Record<string, string> = {};
  for (const setting of settings) {
    const entry = entries[setting.name];
    if (entry === undefined) continue;
    const result = readEntry(shapeOf(setting.form), entry);
    if ('error' in result) errors[setting.name] = result.error;
    else if (JSON.stringify(result.value) !== JSON.stringify(setting.default))
      values[setting.name] = result.value;
  }
  return { values, errors };
}
