import { Vector3 } from 'three';
import { beforeEach, describe, expect, it, vi } from 'vitest';

import type { View } from '../../geometry/camera';
import { CameraControls } from './cameraControls';

const start: View = { position: [0, -1, 3], look_at: [0, 0, 0], up: [0, -1, 0], fov: 45 };
const near = (a: readonly number[], b: readonly number[]) =>
  b.forEach((value, i) => expect(a[i]).toBeCloseTo(value));

beforeEach(() => {
  vi.stubGlobal('matchMedia', () => ({ matches: true }));
});

it('has the start view and the up axis of the scene', () => {
  const controls = new CameraControls([0, -1, 0], start, 10);
  near(controls.view.position, start.position);
  near(controls.view.look_at, start.look_at);
  near(controls.view.up, [0, -1, 0]);
  expect(controls.view.fov).toBe(45);
  controls.dispose();
});

it('keeps the view when the mode changes', () => {
  const controls = new CameraControls([0, -1, 0], start, 10);
  const before = controls.view;
  controls.mode = 'fly';
  controls.mode = 'orbit';
  near(controls.view.position, before.position);
  near(controls.view.look_at, before.look_at);
  controls.dispose();
});

it('glide: jumps if reduced motion is preferred, and notifies listeners', () => {
  const controls = new CameraControls([0, -1, 0], start, 10);
  const heard = vi.fn();
  controls.listen(heard);
  controls.glide({ ...start, position: [3, -1, 0] });
  near(controls.view.position, [3, -1, 0]);
  expect(heard).toHaveBeenCalled();
  controls.dispose();
});

it('fly mode: moves by a tenth of the scene per second', () => {
  const controls = new CameraControls([0, 1, 0], { ...start, position: [0, 0, 3] }, 10);
  controls.mode = 'fly';
  controls.fly.step(new Set(['KeyW']), false, 0.5);
  near(controls.camera.position.toArray(), [0, 0, 2.5]);
  controls.fly.step(new Set(['KeyD', 'KeyE']), true, 0.1);
  near(controls.camera.position.toArray(), [0.4, 0.4, 2.5]);
  controls.dispose();
});

it('press: accepts the keys of the current mode only', () => {
  const controls = new CameraControls([0, 1, 0], start, 10);
  expect([
    controls.press('KeyW', false),
    controls.press('ArrowLeft', false),
    controls.press('Tab', false),
  ]).toEqual([false, true, false]);
  controls.mode = 'fly';
  expect(controls.press('KeyW', false)).toBe(true);
  controls.dispose();
});

describe('walk mode', () => {
  const up = new Vector3(0.2, -0.9, 0.4).normalize(); // not a world axis
  const height = (controls: CameraControls) => controls.camera.position.dot(up);
  const walker = () => {
    const controls = new CameraControls(up.toArray(), { ...start, position: [3, 1, 2] }, 10);
    controls.mode = 'walk';
    return controls;
  };
  const ahead = (controls: CameraControls) => controls.camera.getWorldDirection(new Vector3());

  it('keeps the height in all viewing directions', () => {
    const controls = walker();
    const before = height(controls);
    const keys = [
      ['KeyW'],
      ['KeyS', 'KeyD'],
      ['KeyA', 'ArrowLeft'],
      ['KeyW', 'ArrowUp'],
      ['ArrowDown', 'KeyD'],
    ];
    let [highest, lowest] = [-1, 1];
    for (let k = 0; k < 4000; k++) {
      controls.fly.step(new Set(keys[Math.floor(k / 97) % keys.length]), k % 7 === 0, 0.03);
      highest = Math.max(highest, ahead(controls).dot(up));
      lowest = Math.min(lowest, ahead(controls).dot(up));
    }
    expect([highest > 0.95, lowest < -0.95]).toEqual([true, true]); // both limits were reached
    expect(Math.abs(height(controls) - before)).toBeLessThan(1e-9);
    controls.dispose();
  });

  it('moves at full speed along the viewing direction on the ground', () => {
    const controls = walker();
    controls.fly.step(new Set(['ArrowDown']), false, 1); // look down
    const [from, looked] = [controls.camera.position.clone(), ahead(controls)];
    controls.fly.step(new Set(['KeyW']), false, 0.5);
    const gone = controls.camera.position.clone().sub(from);
    expect(gone.length()).toBeCloseTo(0.5, 9);
    expect(gone.dot(looked)).toBeGreaterThan(0);
    expect(gone.dot(new Vector3().crossVectors(looked, up))).toBeCloseTo(0, 9); // no sideways motion
    near(ahead(controls).toArray(), looked.toArray());
    controls.dispose();
  });

  it('moves if the camera looks straight down', () => {
    const controls = walker();
    const below = controls.camera.position.clone().sub(up);
    controls.view = { ...controls.view, look_at: below.toArray() };
    const from = controls.camera.position.clone();
    controls.fly.step(new Set(['KeyW', 'KeyD']), false, 0.5);
    const gone = controls.camera.position.clone().sub(from);
    expect(gone.length()).toBeCloseTo(0.5 * Math.SQRT2, 9);
    expect(Math.abs(gone.dot(up))).toBeLessThan(1e-9);
    controls.dispose();
  });

  it.each([
    ['KeyE', 1],
    ['PageUp', 1],
    ['KeyQ', -1],
    ['PageDown', -1],
  ])('changes the height by %s', (key, sign) => {
    const controls = walker();
    const from = controls.camera.position.clone();
    expect(controls.press(key, false)).toBe(true);
    controls.fly.step(new Set([key]), true, 0.25);
    near(controls.camera.position.clone().sub(from).toArray(), up.clone().multiplyScalar(sign).toArray());
    controls.dispose();
  });

  it('follows two fingers along the ground', () => {
    const controls = walker();
    const glass = document.createElement('div');
    Object.defineProperty(glass, 'clientHeight', { value: 100 });
    glass.setPointerCapture = () => undefined;
    controls.fly.connect(glass);
    const touch = (type: string, pointerId: number, clientX: number, clientY: number) =>
      glass.dispatchEvent(Object.assign(new MouseEvent(type, { clientX, clientY }), { pointerId }));
    touch('pointerdown', 1, 40, 50);
    touch('pointerdown', 2, 60, 50);
    const [from, looked, before] = [controls.camera.position.clone(), ahead(controls), height(controls)];
    touch('pointermove', 1, 40, 60); // both fingers move down
    touch('pointermove', 2, 60, 60);
    const gone = controls.camera.position.clone().sub(from);
    expect(gone.dot(looked)).toBeGreaterThan(0);
    expect(gone.length()).toBeCloseTo(1, 9); // a tenth of the screen, in a scene of size 10
    expect(Math.abs(height(controls) - before)).toBeLessThan(1e-9);
    controls.dispose();
  });
});
