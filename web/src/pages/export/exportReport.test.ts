import { expect, test } from 'vitest';

import type { Job } from '../../api/client';
import { type Report, reportOf, sizeless, upwards, words } from './exportReport';

const MESH: Report = {
  format: 'glTF',
  holds: 'triangles',
  count: 30_000,
  bytes: 1_234_567,
  bounds: [
    [-1, 0, -0.5],
    [1.1, 1.4, 0.4],
  ],
  watertight: true,
  textured: true,
  read_back: true,
  up: '+y',
  metres_per_unit: 1,
  file_from_capture: [],
};

test('a mesh is told by what there is of it, how large it is, and that it was checked', () => {
  expect(words(MESH)).toBe(
    '30,000 triangles with a texture, watertight, 2.1 × 1.4 × 0.9 m, checked by reading it back',
  );
  expect(upwards(MESH)).toBe('Its y axis points up.');
});

test('millimetres of a printer are metres to people', () => {
  const small: Report = { ...MESH, bounds: [[0, 0, 0], [210, 140, 90]], metres_per_unit: 0.001 }; // prettier-ignore
  expect(words(small)).toContain('21 × 14 × 9 cm');
});

test('where nobody knows the scale, units are no metres', () => {
  const unknown: Report = { ...MESH, watertight: false, textured: false, metres_per_unit: null };
  expect(words(unknown)).toBe(
    '30,000 triangles, not closed, 2.1 × 1.4 × 0.9 units, checked by reading it back',
  );
  expect([sizeless(unknown), sizeless(MESH), sizeless(null)]).toEqual([true, false, false]);
});

test('gaussians have no size worth telling, and nothing is said to be checked that was not', () => {
  const splats: Report = { ...MESH, holds: 'gaussians', count: 1, watertight: null, textured: null };
  expect(words({ ...splats, read_back: false })).toBe(
    '1 gaussian, not checked, since only others read this form',
  );
});

test('only exports that succeeded have a report', () => {
  const job = { asked: { verb: 'export' }, state: 'succeeded', result: MESH } as unknown as Job;
  expect(reportOf(job)).toBe(MESH);
  expect(reportOf({ ...job, state: 'failed' })).toBeNull();
  expect(reportOf({ ...job, result: null })).toBeNull();
  expect(reportOf(undefined)).toBeNull();
});
