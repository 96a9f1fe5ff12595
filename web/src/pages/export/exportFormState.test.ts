import { expect, test } from 'vitest';

import { FORMATS } from './formatFixtures';
import { chosen, NEW, isFromPurpose, request, type Wish } from './exportFormState';

function asked(part: Partial<Wish>, withoutSplats = false) {
  const wish = { ...NEW, ...part };
  return request(wish, chosen(wish, FORMATS, withoutSplats), 'r');
}

test('buildRequest: exports the recommended file by default', () => {
  expect(asked({}).asked).toEqual({ verb: 'export', run: 'r', form: 'ply', kind: 'splats' });
  expect(asked({}, true).asked).toEqual({ verb: 'export', run: 'r', form: 'glb', kind: 'mesh' });
});

test('buildRequest: sends values that differ from the purpose only', () => {
  const wish: Partial<Wish> = {
    target: 'mesh',
    purpose: 'game',
    entries: { faces: '15000', watertight: true },
  };
  expect(asked(wish).asked).toEqual({
    verb: 'export',
    run: 'r',
    form: 'glb',
    kind: 'mesh',
    preset: 'game',
    settings: { watertight: true },
  });
});

test('resolveSelection: uses values of the purpose as defaults', () => {
  const wish: Wish = { ...NEW, target: 'mesh', purpose: 'game' };
  const { file } = chosen(wish, FORMATS, false);
  expect(file?.settings.map((one) => one.default)).toEqual([15_000, false, 'none']);
  expect(file && file.settings.map((one) => isFromPurpose(file, one.name))).toEqual([true, false, false]);
});

test('resolveSelection: fixes the purpose of a single-purpose format', () => {
  const { file } = chosen({ ...NEW, target: 'mesh', form: 'stl', purpose: 'game' }, FORMATS, false);
  expect(file).toMatchObject({ purposes: [], purpose: 'print' });
  expect(asked({ target: 'mesh', form: 'stl' }).asked).toHaveProperty('preset', 'print');
});

test('buildRequest: leaves out settings and purposes of other formats', () => {
  const wish: Partial<Wish> = { target: 'splats', purpose: 'game', entries: { faces: '5' } };
  expect(asked(wish).asked).toEqual({ verb: 'export', run: 'r', form: 'ply', kind: 'splats' });
});

test('buildRequest: exports surface points by default, sends chosen axes', () => {
  expect(asked({ target: 'points' }).asked).toHaveProperty('kind', 'points');
  expect(asked({ target: 'points', kind: 'centres', frame: 'upright', origin: 'centre' }).asked).toEqual({
    verb: 'export',
    run: 'r',
    form: 'ply',
    kind: 'centres',
    frame: 'upright',
    origin: 'centre',
  });
});

test('buildRequest: reports errors and sends nothing', () => {
  expect(asked({ target: 'mesh', entries: { faces: '-1' } })).toEqual({
    asked: null,
    errors: { 'settings.faces': 'Must be at least 0' },
  });
});
