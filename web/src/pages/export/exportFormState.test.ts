import { expect, test } from 'vitest';

import { OFFERS } from './formatFixtures';
import { chosen, NEW, ofPurpose, request, type Wish } from './exportFormState';

function asked(part: Partial<Wish>, flat = false) {
  const wish = { ...NEW, ...part };
  return request(wish, chosen(wish, OFFERS, flat), 'r');
}

test('nothing chosen is the recommended file', () => {
  expect(asked({}).asked).toEqual({ verb: 'export', run: 'r', form: 'ply', kind: 'splats' });
  expect(asked({}, true).asked).toEqual({ verb: 'export', run: 'r', form: 'glb', kind: 'mesh' });
});

test('only what differs from the purpose is sent beside it', () => {
  const wish: Partial<Wish> = {
    want: 'mesh',
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

test('the values of a purpose stand in the form, and are known as such', () => {
  const wish: Wish = { ...NEW, want: 'mesh', purpose: 'game' };
  const { file } = chosen(wish, OFFERS, false);
  expect(file?.settings.map((one) => one.default)).toEqual([15_000, false, 'none']);
  expect(file && file.settings.map((one) => ofPurpose(file, one.name))).toEqual([true, false, false]);
});

test('a form for one purpose alone leaves no choice', () => {
  const { file } = chosen({ ...NEW, want: 'mesh', form: 'stl', purpose: 'game' }, OFFERS, false);
  expect(file).toMatchObject({ purposes: [], purpose: 'print' });
  expect(asked({ want: 'mesh', form: 'stl' }).asked).toHaveProperty('preset', 'print');
});

test('settings and purposes of another form are left out', () => {
  const wish: Partial<Wish> = { want: 'splats', purpose: 'game', entries: { faces: '5' } };
  expect(asked(wish).asked).toEqual({ verb: 'export', run: 'r', form: 'ply', kind: 'splats' });
});

test('points are on surfaces unless asked otherwise, and axes are sent when chosen', () => {
  expect(asked({ want: 'points' }).asked).toHaveProperty('kind', 'points');
  expect(asked({ want: 'points', kind: 'centres', frame: 'upright', origin: 'centre' }).asked).toEqual({
    verb: 'export',
    run: 'r',
    form: 'ply',
    kind: 'centres',
    frame: 'upright',
    origin: 'centre',
  });
});

test('what cannot be is named, and not asked for', () => {
  expect(asked({ want: 'mesh', entries: { faces: '-1' } })).toEqual({
    asked: null,
    faults: { 'settings.faces': 'Must be at least 0' },
  });
});
