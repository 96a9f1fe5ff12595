import { expect, test } from 'vitest';

import { FORMATS } from './formatFixtures';
import { formatsFor, targetsFor } from './exportFormats';

const forms = (...of: Parameters<typeof formatsFor>) => formatsFor(...of).map((one) => one.form);

test('formatsFor: puts the recommended format first, unknown ones last', () => {
  expect(targetsFor(FORMATS, false)).toEqual(['splats', 'mesh', 'points', 'video']);
  expect(forms('splats', FORMATS, false)).toEqual(['ply', 'compressed.ply', 'glb']);
  expect(forms('mesh', FORMATS, false)).toEqual(['glb', 'stl', 'ply', 'new']);
  expect(formatsFor('mesh', FORMATS, false).at(-1)).toMatchObject({ name: 'Plugin format', common: false });
});

test('formatsFor: puts surface points first', () => {
  const [ply, xyz] = formatsFor('points', FORMATS, false);
  expect(ply?.kinds.map((one) => one.kind)).toEqual(['points', 'centres']);
  expect(xyz?.kinds.map((one) => one.kind)).toEqual(['centres']);
});

test('targetsFor: offers no splats without gaussians', () => {
  expect(targetsFor(FORMATS, true)).toEqual(['mesh', 'points', 'video']);
  expect(forms('points', FORMATS, true)).toEqual(['ply']);
  const old = FORMATS.map((one) => ({ ...one, kinds: one.kinds.filter(({ kind }) => kind !== 'points') }));
  expect(targetsFor(old, true)).toEqual(['mesh', 'video']);
});

test('targetsFor: offers video without any format', () => {
  expect(targetsFor([], false)).toEqual(['video']);
});
