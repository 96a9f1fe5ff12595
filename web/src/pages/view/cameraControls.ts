// The camera of the page and its controls. It draws nothing: renderers listen to it.

import { MathUtils, PerspectiveCamera, Spherical, Quaternion, Vector3 } from 'three';
import { OrbitControls } from 'three/examples/jsm/controls/OrbitControls.js';

import type { Vector } from '../../geometry/vector';
import { interpolateView, type View } from '../../geometry/camera';
import { FlyControls, MOVES, TURNS } from './flyControls';

export type NavigationMode = 'orbit' | 'walk' | 'fly';

const TURN = 1.4; // radians per second, by the arrow keys
const ZOOM = 1.2; // log distance per second
const ZOOMS: Record<string, number> = { Equal: 1, NumpadAdd: 1, Minus: -1, NumpadSubtract: -1 };
const GLIDE = 0.5; // seconds

export class CameraControls {
  readonly camera = new PerspectiveCamera(50, 1, 0.01, 1000);
  readonly fly: FlyControls;
  version = 0; // rises with every change
  private readonly orbit: OrbitControls;
  private readonly listeners = new Set<() => void>();
  private readonly keys = new Set<string>();
  private hands: NavigationMode = 'orbit';
  private fast = false;
  private beat = 0;
  private last = 0;
  private play: { way: (seconds: number) => View; seconds: number; at: number; end: () => void } | null =
    null;

  /** `reach`: size of the scene, which sets steps and limits. */
  constructor(up: Vector, start: View, reach: number) {
    this.camera.up.set(...up).normalize();
    this.camera.near = reach / 2000;
    this.camera.far = reach * 100;
    this.orbit = new OrbitControls(this.camera);
    Object.assign(this.orbit, {
      enableDamping: true,
      dampingFactor: 0.12,
      zoomToCursor: true,
      rotateSpeed: 0.8,
    });
    Object.assign(this.orbit, { minDistance: reach / 500, maxDistance: reach * 20 });
    this.fly = new FlyControls(this.camera, reach, this.flew);
    this.view = start;
    this.orbit.addEventListener('change', this.tell);
    this.orbit.addEventListener('start', this.stop);
  }

  connect(element: HTMLElement): void {
    this.orbit.connect(element);
    this.fly.connect(element);
  }

  disconnect(): void {
    this.stop();
    cancelAnimationFrame(this.beat);
    this.beat = 0;
    if (this.orbit.domElement) this.orbit.disconnect();
    this.fly.disconnect();
    this.keys.clear();
  }

  /** Calls the listener at every change. Returns a function that removes it. */
  readonly listen = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  resize(width: number, height: number): void {
    this.camera.aspect = Math.max(width, 1) / Math.max(height, 1);
    this.camera.updateProjectionMatrix();
    this.tell();
  }

  get mode(): NavigationMode {
    return this.hands;
  }

  set mode(hands: NavigationMode) {
    this.hands = hands;
    this.orbit.enabled = hands === 'orbit';
    this.fly.enabled = hands !== 'orbit';
    this.fly.walks = hands === 'walk';
    this.keys.clear();
    this.orbit.update();
    this.tell();
  }

  get view(): View {
    const { position, up, fov } = this.camera;
    return { position: position.toArray(), look_at: this.orbit.target.toArray(), up: up.toArray(), fov };
  }

  /** Sets the view; `up` stays that of the scene. */
  set view({ position, look_at, fov }: Omit<View, 'up'>) {
    this.camera.position.set(...position);
    this.orbit.target.set(...look_at);
    this.camera.fov = fov;
    this.camera.lookAt(this.orbit.target);
    this.camera.updateProjectionMatrix();
    this.camera.updateMatrixWorld();
    if (this.hands === 'orbit') this.orbit.update();
    this.tell();
  }

  /** Moves to a view in half a second, or at once if reduced motion is preferred. */
  glide(to: Omit<View, 'up'>): void {
    const from = this.view;
    if (matchMedia('(prefers-reduced-motion: reduce)').matches) this.view = to;
    else
      this.run(
        (at) => interpolateView(from, { ...to, up: from.up }, MathUtils.smoothstep(at / GLIDE, 0, 1)),
        GLIDE,
      );
  }

  /** Plays a camera path. User input or `stop` ends it. */
  run(way: (seconds: number) => View, seconds: number, end: () => void = () => undefined): void {
    this.stop();
    this.play = { way, seconds, at: 0, end };
    this.wake();
  }

  readonly stop = (): void => {
    const { play } = this;
    this.play = null;
    play?.end();
  };

  /** Handles a key press. Returns whether the key has a function in this mode. */
  press(code: string, fast: boolean): boolean {
    const known = code in TURNS || code in (this.hands === 'orbit' ? ZOOMS : MOVES);
    if (!known) return false;
    this.stop();
    this.fast = fast;
    this.keys.add(code);
    this.wake();
    return true;
  }

  release(code?: string): void {
    if (code === undefined) this.keys.clear();
    else this.keys.delete(code);
  }

  dispose(): void {
    this.disconnect();
    this.listeners.clear();
  }

  private readonly tell = (): void => {
    this.version++;
    this.wake();
    for (const listener of this.listeners) listener();
  };

  private wake(): void {
    if (this.beat) return;
    this.last = performance.now();
    this.beat = requestAnimationFrame(this.tick);
  }

  /** Runs once per frame while the camera moves. */
  private readonly tick = (now: number): void => {
    this.beat = 0;
    const seconds = Math.min(0.1, Math.max(0, (now - this.last) / 1000));
    const moving = this.advance(seconds);
    this.last = now;
    if (moving && !this.beat) this.beat = requestAnimationFrame(this.tick);
  };

  private advance(seconds: number): boolean {
    if (this.play) {
      this.follow(this.play, seconds);
      return true;
    }
    if (this.hands !== 'orbit') {
      if (!this.fly.step(this.keys, this.fast, seconds)) return false;
      this.flew();
      return true;
    }
    const turned = this.keys.size > 0 && this.circle(seconds);
    return this.orbit.update() || turned;
  }

  private follow(play: NonNullable<CameraControls['play']>, seconds: number): void {
    play.at = Math.min(play.seconds, play.at + seconds);
    this.view = play.way(play.at);
    if (play.at >= play.seconds && this.play === play) this.stop();
  }

  private readonly flew = (): void => {
    const far = this.camera.position.distanceTo(this.orbit.target);
    const ahead = new Vector3(0, 0, -1).applyQuaternion(this.camera.quaternion);
    this.orbit.target.copy(this.camera.position).addScaledVector(ahead, far);
    this.stop();
    this.camera.updateMatrixWorld();
    this.tell();
  };

  /** Arrow keys orbit the target; plus and minus zoom. */
  private circle(seconds: number): boolean {
    let [left, over, nearer] = [0, 0, 0];
    for (const key of this.keys) {
      const turn = TURNS[key];
      if (turn) [left, over] = [left - turn[0], over + turn[1]];
      nearer += ZOOMS[key] ?? 0;
    }
    const upright = new Quaternion().setFromUnitVectors(this.camera.up, new Vector3(0, 1, 0));
    const arm = this.camera.position.clone().sub(this.orbit.target).applyQuaternion(upright);
    const at = new Spherical().setFromVector3(arm);
    at.theta += left * TURN * seconds;
    at.phi -= over * TURN * seconds;
    at.radius *= Math.exp(-nearer * ZOOM * seconds);
    at.makeSafe();
    this.camera.position
      .copy(this.orbit.target)
      .add(arm.setFromSpherical(at).applyQuaternion(upright.invert()));
    return left !== 0 || over !== 0 || nearer !== 0;
  }
}
