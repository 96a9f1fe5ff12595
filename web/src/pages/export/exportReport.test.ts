import { expect, test } from 'vitest';

import type { Job } from '../../api/client';
import { type Report, reportOf, isUnscaled, describeUpAxis, words } from './exportReport';

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

test('describeReport: has count, texture, size and verification of a mesh', () => {
  expect(words(MESH)).toBe('30,000 triangles with a texture, watertight, 2.1 × 1.4 × 0.9 m, verified');
  expect(describeUpAxis(MESH)).toBe('Up axis: y.');
});

test('describeReport: converts units to metres', () => {
  const small: Report = { ...MESH, bounds: [[0, 0, 0], [210, 140, 90]], metres_per_unit: 0.001 }; // prettier-ignore
  expect(words(small)).toContain('21 × 14 × 9 cm');
});

test('describeReport: gives units without a scale', () => {
  const unknown: Report = { ...MESH, watertight: false, textured: false, metres_per_unit: null };
  expect(words(unknown)).toBe('30,000 triangles, not closed, 2.1 × 1.4 × 0.9 units, verified');
  expect([isUnscaled(unknown), isUnscaled(MESH), isUnscaled(null)]).toEqual([true, false, false]);
});

test('describeReport: gives no size of gaussians', () => {
  const splats: Report = { ...MESH, holds: 'gaussians', count: 1, watertight: null, textured: null };
  expect(words({ ...splats, read_back: false })).toBe('1 gaussian, not verified: this format is write-only');
});

test('reportOf: needs a successful export', () => {
  const job = { asked: { verb: 'export' }, state: 'succeeded', result: MESH } as unknown as Job;
  expect(reportOf(job)).toBe(MESH);
  expect(reportOf({ ...job, state: 'failed' })).toBeNull();
  expect(reportOf({ ...job, result: null })).toBeNull();
  expect(reportOf(undefined)).toBeNull();
});
