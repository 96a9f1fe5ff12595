import { expect, test } from 'vitest';

import { FORMATS } from './formatFixtures';
import {
  resolveSelection,
  INITIAL_EXPORT,
  isFromPurpose,
  buildExportRequest,
  type ExportFormState,
} from './exportFormState';

function build(part: Partial<ExportFormState>, withoutSplats = false) {
  const state = { ...INITIAL_EXPORT, ...part };
  return buildExportRequest(state, resolveSelection(state, FORMATS, withoutSplats), 'r');
}

test('buildRequest: exports the recommended file by default', () => {
  expect(build({}).request).toEqual({ verb: 'export', run: 'r', form: 'ply', kind: 'splats' });
  expect(build({}, true).request).toEqual({ verb: 'export', run: 'r', form: 'glb', kind: 'mesh' });
});

test('buildRequest: sends values that differ from the purpose only', () => {
  const state: Partial<ExportFormState> = {
    target: 'mesh',
    purpose: 'game',
    entries: { faces: '15000', watertight: true },
  };
  expect(build(state).request).toEqual({
    verb: 'export',
    run: 'r',
    form: 'glb',
    kind: 'mesh',
    preset: 'game',
    settings: { watertight: true },
  });
});

test('resolveSelection: uses values of the purpose as defaults', () => {
  const state: ExportFormState = { ...INITIAL_EXPORT, target: 'mesh', purpose: 'game' };
  const { file } = resolveSelection(state, FORMATS, false);
  expect(file?.settings.map((setting) => setting.default)).toEqual([15_000, false, 'none']);
  expect(file && file.settings.map((setting) => isFromPurpose(file, setting.name))).toEqual([
    true,
    false,
    false,
  ]);
});

test('resolveSelection: fixes the purpose of a single-purpose format', () => {
  const { file } = resolveSelection(
    { ...INITIAL_EXPORT, target: 'mesh', form: 'stl', purpose: 'game' },
    FORMATS,
    false,
  );
  expect(file).toMatchObject({ purposes: [], purpose: 'print' });
  expect(build({ target: 'mesh', form: 'stl' }).request).toHaveProperty('preset', 'print');
});

test('buildRequest: leaves out settings and purposes of other formats', () => {
  const state: Partial<ExportFormState> = { target: 'splats', purpose: 'game', entries: { faces: '5' } };
  expect(build(state).request).toEqual({ verb: 'export', run: 'r', form: 'ply', kind: 'splats' });
});

test('buildRequest: exports surface points by default, sends selected axes', () => {
  expect(build({ target: 'points' }).request).toHaveProperty('kind', 'points');
  expect(build({ target: 'points', kind: 'centres', frame: 'upright', origin: 'centre' }).request).toEqual({
    verb: 'export',
    run: 'r',
    form: 'ply',
    kind: 'centres',
    frame: 'upright',
    origin: 'centre',
  });
});

test('buildRequest: reports errors and sends nothing', () => {
  expect(build({ target: 'mesh', entries: { faces: '-1' } })).toEqual({
    request: null,
    errors: { 'settings.faces': 'Must be at least 0' },
  });
});
