import { Vector3 } from 'three';
import { beforeEach, describe, expect, it, vi } from 'vitest';

import type { View } from '../../geometry/camera';
import { Rig } from './cameraControls';

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

describe('on foot', () => {
  const up = new Vector3(0.2, -0.9, 0.4).normalize(); // no axis of the world
  const height = (rig: Rig) => rig.camera.position.dot(up);
  const walker = () => {
    const rig = new Rig(up.toArray(), { ...start, position: [3, 1, 2] }, 10);
    rig.mode = 'walk';
    return rig;
  };
  const ahead = (rig: Rig) => rig.camera.getWorldDirection(new Vector3());

  it('keeps the height, wherever one looks', () => {
    const rig = walker();
    const before = height(rig);
    const keys = [
      ['KeyW'],
      ['KeyS', 'KeyD'],
      ['KeyA', 'ArrowLeft'],
      ['KeyW', 'ArrowUp'],
      ['ArrowDown', 'KeyD'],
    ];
    let [highest, lowest] = [-1, 1];
    for (let k = 0; k < 4000; k++) {
      rig.fly.step(new Set(keys[Math.floor(k / 97) % keys.length]), k % 7 === 0, 0.03);
      highest = Math.max(highest, ahead(rig).dot(up));
      lowest = Math.min(lowest, ahead(rig).dot(up));
    }
    expect([highest > 0.95, lowest < -0.95]).toEqual([true, true]); // it has looked steeply up, and down
    expect(Math.abs(height(rig) - before)).toBeLessThan(1e-9);
    rig.dispose();
  });

  it('goes by the full pace to where one looks, as the ground has it', () => {
    const rig = walker();
    rig.fly.step(new Set(['ArrowDown']), false, 1); // looks further down
    const [from, looked] = [rig.camera.position.clone(), ahead(rig)];
    rig.fly.step(new Set(['KeyW']), false, 0.5);
    const gone = rig.camera.position.clone().sub(from);
    expect(gone.length()).toBeCloseTo(0.5, 9);
    expect(gone.dot(looked)).toBeGreaterThan(0);
    expect(gone.dot(new Vector3().crossVectors(looked, up))).toBeCloseTo(0, 9); // neither left nor right
    near(ahead(rig).toArray(), looked.toArray());
    rig.dispose();
  });

  it('goes on where one looks straight down', () => {
    const rig = walker();
    const below = rig.camera.position.clone().sub(up);
    rig.view = { ...rig.view, look_at: below.toArray() };
    const from = rig.camera.position.clone();
    rig.fly.step(new Set(['KeyW', 'KeyD']), false, 0.5);
    const gone = rig.camera.position.clone().sub(from);
    expect(gone.length()).toBeCloseTo(0.5 * Math.SQRT2, 9);
    expect(Math.abs(gone.dot(up))).toBeLessThan(1e-9);
    rig.dispose();
  });

  it.each([
    ['KeyE', 1],
    ['PageUp', 1],
    ['KeyQ', -1],
    ['PageDown', -1],
  ])('stands higher or lower by %s', (key, sign) => {
    const rig = walker();
    const from = rig.camera.position.clone();
    expect(rig.press(key, false)).toBe(true);
    rig.fly.step(new Set([key]), true, 0.25);
    near(rig.camera.position.clone().sub(from).toArray(), up.clone().multiplyScalar(sign).toArray());
    rig.dispose();
  });

  it('follows two fingers along the ground', () => {
    const rig = walker();
    const glass = document.createElement('div');
    Object.defineProperty(glass, 'clientHeight', { value: 100 });
    glass.setPointerCapture = () => undefined;
    rig.fly.connect(glass);
    const touch = (type: string, pointerId: number, clientX: number, clientY: number) =>
      glass.dispatchEvent(Object.assign(new MouseEvent(type, { clientX, clientY }), { pointerId }));
    touch('pointerdown', 1, 40, 50);
    touch('pointerdown', 2, 60, 50);
    const [from, looked, before] = [rig.camera.position.clone(), ahead(rig), height(rig)];
    touch('pointermove', 1, 40, 60); // both of them down the glass
    touch('pointermove', 2, 60, 60);
    const gone = rig.camera.position.clone().sub(from);
    expect(gone.dot(looked)).toBeGreaterThan(0);
    expect(gone.length()).toBeCloseTo(1, 9); // a tenth of the glass, of a scene of ten
    expect(Math.abs(height(rig) - before)).toBeLessThan(1e-9);
    rig.dispose();
  });
});
