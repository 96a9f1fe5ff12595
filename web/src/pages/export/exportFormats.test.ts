import { expect, test } from 'vitest';

import { OFFERS } from './formatFixtures';
import { formsOf, wantsOf } from './exportFormats';

const forms = (...of: Parameters<typeof formsOf>) => formsOf(...of).map((one) => one.form);

test('the recommended form comes first, what nobody described last', () => {
  expect(wantsOf(OFFERS, false)).toEqual(['splats', 'mesh', 'points', 'film']);
  expect(forms('splats', OFFERS, false)).toEqual(['ply', 'compressed.ply', 'glb']);
  expect(forms('mesh', OFFERS, false)).toEqual(['glb', 'stl', 'ply', 'new']);
  expect(formsOf('mesh', OFFERS, false).at(-1)).toMatchObject({ name: 'Of a plug-in', common: false });
});

test('points lie on surfaces first, whatever the server names first', () => {
  const [ply, xyz] = formsOf('points', OFFERS, false);
  expect(ply?.kinds.map((one) => one.kind)).toEqual(['points', 'centres']);
  expect(xyz?.kinds.map((one) => one.kind)).toEqual(['centres']);
});

test('without gaussians there are neither splats nor their centres', () => {
  expect(wantsOf(OFFERS, true)).toEqual(['mesh', 'points', 'film']);
  expect(forms('points', OFFERS, true)).toEqual(['ply']);
  const old = OFFERS.map((one) => ({ ...one, kinds: one.kinds.filter(({ kind }) => kind !== 'points') }));
  expect(wantsOf(old, true)).toEqual(['mesh', 'film']);
});

test('a film is all that can be wanted where nothing is offered', () => {
  expect(wantsOf([], false)).toEqual(['film']);
});
