// @vitest-environment node

import { join } from 'node:path';

import { RuleTester } from 'eslint';
import { expect, test } from 'vitest';

import { cycleThrough, layers, violation } from './layers.js';

const src = (file) => join(import.meta.dirname, '..', 'src', file);

test('violation: pages import shared folders, never each other', () => {
  expect(violation('pages/view/Toolbar', 'design/Button')).toBeNull();
  expect(violation('pages/view/Toolbar', 'pages/view/probe')).toBeNull();
  expect(violation('pages/view/Toolbar', 'pages/train/metrics')).toBe(
    'pages/view may not import pages/train',
  );
  expect(violation('pages/view/Toolbar', 'app/Shell')).toBe('pages/view may not import app');
});

test('violation: lower folders import no higher ones', () => {
  expect(violation('design/Toasts', 'api/client')).toBe('design may not import api');
  expect(violation('runs/NoRuns', 'pages/train/TrainTab')).toBe('runs may not import pages/train');
  expect(violation('extras/thing', 'lib/id')).toBe('extras is not in MAY_IMPORT');
});

test('cycleThrough: finds a cycle and only that', () => {
  const imports = new Map([
    ['a', ['b', 'c']],
    ['b', ['c']],
    ['c', ['d']],
    ['d', ['b']],
  ]);
  expect(cycleThrough('b', imports)).toEqual(['b', 'c', 'd', 'b']);
  expect(cycleThrough('a', imports)).toBeNull();
});

test('layers: reports imports, re-exports and dynamic imports', () => {
  const tester = new RuleTester({ languageOptions: { ecmaVersion: 2022, sourceType: 'module' } });
  const errors = [{ message: 'pages/view may not import pages/export' }];
  const filename = src('pages/view/Example.js');
  tester.run('layers', layers, {
    valid: [
      { code: "import { add } from '../../geometry/vector';", filename },
      { code: "import 'react';", filename },
    ],
    invalid: [
      { code: "import { words } from '../export/exportReport';", filename, errors },
      { code: "export * from '../export/exportReport';", filename, errors },
      { code: "import('../export/exportReport');", filename, errors },
    ],
  });
});
