// For tests: a few settings as the server lists them.

import type { Setting } from './settingSchema';

export const setting = (name: string, value: unknown, form: Record<string, unknown>): Setting => ({
  name,
  kind: '',
  doc: `about ${name}`,
  default: value,
  form,
});

export const SETTINGS: Setting[] = [
  setting('cap', 0, { type: 'integer', minimum: 0, maximum: 50_000_000 }),
  setting('rate', 0.0005, { type: 'number', minimum: 0, maximum: 1 }),
  setting('densify', 'error', { enum: ['error', 'gradient', 'mixed'] }),
  setting('exposure', false, { type: 'boolean' }),
  setting('limit', null, { anyOf: [{ type: 'integer', minimum: 1 }, { type: 'null' }] }),
  setting('axis', [0, 0, 1], { type: 'array', items: { type: 'number' }, minItems: 3, maxItems: 3 }),
  setting('note', 'hello', { type: 'string' }),
  setting('seed', 0, { type: 'integer' }),
];
