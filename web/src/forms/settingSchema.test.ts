import { describe, expect, test } from 'vitest';

import { SETTINGS } from './settingFixtures';
import { changedValues, readEntry, shapeOf } from './settingSchema';
import { stepOf } from './SettingField';
import { settingLabel } from './settingLabels';

describe('shapeOf', () => {
  test('readEntry: checks integers and bounds', () => {
    const shape = shapeOf({ type: 'integer', minimum: 0, maximum: 3 });
    expect(readEntry(shape, '2')).toEqual({ value: 2 });
    expect(readEntry(shape, '2.5')).toEqual({ error: 'Must be a whole number' });
    expect(readEntry(shape, '-1')).toEqual({ error: 'Must be at least 0' });
    expect(readEntry(shape, '4')).toEqual({ error: 'Must be at most 3' });
    expect(readEntry(shape, '')).toEqual({ error: 'Must be a number' });
  });

  test('readEntry: accepts an empty entry if null is allowed', () => {
    const shape = shapeOf({ anyOf: [{ type: 'number' }, { type: 'null' }] });
    expect(readEntry(shape, ' ')).toEqual({ value: null });
    expect(readEntry(shape, '1e-3')).toEqual({ value: 0.001 });
  });

  test('readEntry: keeps the type of choices', () => {
    expect(readEntry(shapeOf({ enum: [1, 2, 'auto'] }), '2')).toEqual({ value: 2 });
    expect(readEntry(shapeOf({ enum: ['a', null] }), '')).toEqual({ value: null });
  });

  test('readEntry: reads each number of a list', () => {
    const shape = shapeOf({ type: 'array', items: { type: 'number', maximum: 1 }, minItems: 2 });
    expect(readEntry(shape, ['0.5', '1'])).toEqual({ value: [0.5, 1] });
    expect(readEntry(shape, ['0.5', '2'])).toEqual({ error: 'Must be at most 1' });
  });
});

test('changedValues: leaves out defaults', () => {
  const entries = {
    cap: '0',
    rate: '0.001',
    exposure: true,
    axis: ['0', '0', '1'],
    limit: '',
    note: 'hello',
  };
  expect(changedValues(SETTINGS, entries)).toEqual({ values: { rate: 0.001, exposure: true }, errors: {} });
});

test('changedValues: reports errors', () => {
  expect(changedValues(SETTINGS, { cap: '-1' })).toEqual({
    values: {},
    errors: { cap: 'Must be at least 0' },
  });
});

test('stepOf: is the power of ten of the value', () => {
  expect(stepOf(true, '10000')).toBe(1);
  expect(stepOf(false, '0.0005')).toBe(0.0001);
  expect(stepOf(false, '0.25')).toBe(0.1);
  expect(stepOf(false, '0')).toBe(0.01);
});

test('settingLabel: turns names into words', () => {
  expect(settingLabel('lr_mean_end')).toBe('Learning rate, mean end');
  expect(settingLabel('start_points')).toBe('Start points');
});
