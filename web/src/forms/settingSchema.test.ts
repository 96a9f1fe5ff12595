import { describe, expect, test } from 'vitest';

import { SETTINGS } from './settingFixtures';
import { changes, read, shapeOf } from './settingSchema';
import { stepOf } from './SettingField';
import { settingName } from './settingLabels';

describe('a setting', () => {
  test('whole numbers have bounds', () => {
    const shape = shapeOf({ type: 'integer', minimum: 0, maximum: 3 });
    expect(read(shape, '2')).toEqual({ value: 2 });
    expect(read(shape, '2.5')).toEqual({ fault: 'Must be a whole number' });
    expect(read(shape, '-1')).toEqual({ fault: 'Must be at least 0' });
    expect(read(shape, '4')).toEqual({ fault: 'Must be at most 3' });
    expect(read(shape, '')).toEqual({ fault: 'Must be a number' });
  });

  test('may be empty where null is allowed', () => {
    const shape = shapeOf({ anyOf: [{ type: 'number' }, { type: 'null' }] });
    expect(read(shape, ' ')).toEqual({ value: null });
    expect(read(shape, '1e-3')).toEqual({ value: 0.001 });
  });

  test('choices keep their type', () => {
    expect(read(shapeOf({ enum: [1, 2, 'auto'] }), '2')).toEqual({ value: 2 });
    expect(read(shapeOf({ enum: ['a', null] }), '')).toEqual({ value: null });
  });

  test('numbers of a list are each read', () => {
    const shape = shapeOf({ type: 'array', items: { type: 'number', maximum: 1 }, minItems: 2 });
    expect(read(shape, ['0.5', '1'])).toEqual({ value: [0.5, 1] });
    expect(read(shape, ['0.5', '2'])).toEqual({ fault: 'Must be at most 1' });
  });
});

test('only what differs from the defaults is sent', () => {
  const entries = {
    cap: '0',
    rate: '0.001',
    exposure: true,
    axis: ['0', '0', '1'],
    limit: '',
    note: 'hello',
  };
  expect(changes(SETTINGS, entries)).toEqual({ values: { rate: 0.001, exposure: true }, faults: {} });
});

test('what is wrong is named', () => {
  expect(changes(SETTINGS, { cap: '-1' })).toEqual({ values: {}, faults: { cap: 'Must be at least 0' } });
});

test('arrow keys change a number by its own size', () => {
  expect(stepOf(true, '10000')).toBe(1);
  expect(stepOf(false, '0.0005')).toBe(0.0001);
  expect(stepOf(false, '0.25')).toBe(0.1);
  expect(stepOf(false, '0')).toBe(0.01);
});

test('names are words', () => {
  expect(settingName('lr_mean_end')).toBe('Learning rate, mean end');
  expect(settingName('start_points')).toBe('Start points');
});
