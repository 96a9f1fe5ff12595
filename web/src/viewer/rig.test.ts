import { beforeEach, expect, it, vi } from 'vitest';

import type { View } from './camera';
import { Rig } from './rig';

const start: View = { position: [0, -1, 3], look_at: [0, 0, 0], up: [0, -1, 0], fov: 45 };
const near = (a: readonly number[], b: readonly number[]) =>
  b.forEach((value, i) => expect(a[i]).toBeCloseTo(value));

beforeEach(() => {
  vi.stubGlobal('matchMedia', () => ({ matches: true }));
});

it('stands where it is told, with the up of the scene', () => {
  const rig = new Rig([0, -1, 0], start, 10);
  near(rig.view.position, start.position);
  near(rig.view.look_at, start.look_at);
  near(rig.view.up, [0, -1, 0]);
  expect(rig.view.fov).toBe(45);
  rig.dispose();
});

it('keeps what is seen when hands change', () => {
  const rig = new Rig([0, -1, 0], start, 10);
  const before = rig.view;
  rig.mode = 'fly';
  rig.mode = 'orbit';
  near(rig.view.position, before.position);
  near(rig.view.look_at, before.look_at);
  rig.dispose();
});

it('goes there at once where motion is not wanted, and tells it', () => {
  const rig = new Rig([0, -1, 0], start, 10);
  const heard = vi.fn();
  rig.listen(heard);
  rig.glide({ ...start, position: [3, -1, 0] });
  near(rig.view.position, [3, -1, 0]);
  expect(heard).toHaveBeenCalled();
  rig.dispose();
});

it('flies forward by a tenth of the scene a second, and looks as far ahead as before', () => {
  const rig = new Rig([0, 1, 0], { ...start, position: [0, 0, 3] }, 10);
  rig.mode = 'fly';
  rig.fly.step(new Set(['KeyW']), false, 0.5);
  near(rig.camera.position.toArray(), [0, 0, 2.5]);
  rig.fly.step(new Set(['KeyD', 'KeyE']), true, 0.1);
  near(rig.camera.position.toArray(), [0.4, 0.4, 2.5]);
  rig.dispose();
});

it('knows the keys of its mode alone', () => {
  const rig = new Rig([0, 1, 0], start, 10);
  expect([rig.press('KeyW', false), rig.press('ArrowLeft', false), rig.press('Tab', false)]).toEqual([
    false,
    true,
    false,
  ]);
  rig.mode = 'fly';
  expect(rig.press('KeyW', false)).toBe(true);
  rig.dispose();
});
