// Flying: drags turn the camera, keys move it, the wheel sets the speed; on touch screens two fingers move.
//
// Walking is flying in the ground plane: the camera keeps its height in all viewing directions. Only the keys for up
// and down change the height.

import { type PerspectiveCamera, Quaternion, Vector3 } from 'three';

const TURN = 0.0035; // radians a pixel
const KEY_TURN = 1.2; // radians a second
const STEEPEST = 0.995; // sine of the elevation: straight up, left and right are undefined
const FASTER = 4;

/** Keys that move and keys that turn, by physical position (KeyboardEvent.code). */
export const MOVES: Record<string, [right: number, up: number, forward: number]> = {
  KeyW: [0, 0, 1],
  KeyS: [0, 0, -1],
  KeyA: [-1, 0, 0],
  KeyD: [1, 0, 0],
  KeyE: [0, 1, 0],
  KeyQ: [0, -1, 0],
  PageUp: [0, 1, 0],
  PageDown: [0, -1, 0],
};
export const TURNS: Record<string, [right: number, up: number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, 1],
  ArrowDown: [0, -1],
};

export class FlyControls {
  enabled = false;
  walks = false;
  pace: number; // 1 = a tenth of the scene per second
  private readonly pointers = new Map<number, { x: number; y: number }>();
  private element: HTMLElement | null = null;

  constructor(
    private readonly camera: PerspectiveCamera,
    private readonly reach: number,
    private readonly changed: () => void,
  ) {
    this.pace = 1;
  }

  connect(element: HTMLElement): void {
    this.element = element;
    element.addEventListener('pointerdown', this.down);
    element.addEventListener('pointermove', this.move);
    element.addEventListener('pointerup', this.up);
    element.addEventListener('pointercancel', this.up);
    element.addEventListener('wheel', this.wheel, { passive: false });
  }

  disconnect(): void {
    this.element?.removeEventListener('pointerdown', this.down);
    this.element?.removeEventListener('pointermove', this.move);
    this.element?.removeEventListener('pointerup', this.up);
    this.element?.removeEventListener('pointercancel', this.up);
    this.element?.removeEventListener('wheel', this.wheel);
    this.pointers.clear();
    this.element = null;
  }

  /** Applies the pressed keys for some seconds. Returns whether the camera moved. */
  step(keys: ReadonlySet<string>, fast: boolean, seconds: number): boolean {
    const way = new Vector3();
    let [right, up] = [0, 0];
    for (const key of keys) {
      const move = MOVES[key];
      const turn = TURNS[key];
      if (move) way.add(new Vector3(...move));
      if (turn) [right, up] = [right + turn[0], up + turn[1]];
    }
    if (way.lengthSq() === 0 && right === 0 && up === 0) return false;
    this.go(way.multiplyScalar(0.1 * this.reach * this.pace * seconds * (fast ? FASTER : 1)));
    this.turn(-right * KEY_TURN * seconds, up * KEY_TURN * seconds);
    return true;
  }

  /** Moves by (right, up, forward) in camera axes, or in ground axes while walking. */
  private go(way: Vector3): void {
    const { position, quaternion } = this.camera;
    if (!this.walks) {
      position.add(new Vector3(way.x, way.y, -way.z).applyQuaternion(quaternion));
      return;
    }
    // The camera never rolls, so its right axis is level even if it looks straight down; forward follows from it.
    const up = this.camera.up.clone().normalize();
    const right = new Vector3(1, 0, 0).applyQuaternion(quaternion).projectOnPlane(up).normalize();
    const ahead = new Vector3().crossVectors(up, right);
    position.addScaledVector(right, way.x).addScaledVector(up, way.y).addScaledVector(ahead, way.z);
  }

  /** Turns left about the world's up axis, then up, within the elevation limit. */
  private turn(left: number, up: number): void {
    const axis = this.camera.up.clone().normalize();
    const camera = this.camera;
    camera.quaternion.premultiply(new Quaternion().setFromAxisAngle(axis, left));
    const before = camera.quaternion.clone();
    camera.quaternion.multiply(new Quaternion().setFromAxisAngle(new Vector3(1, 0, 0), up));
    const steep = (turned: Quaternion) => new Vector3(0, 0, -1).applyQuaternion(turned).dot(axis);
    const now = steep(camera.quaternion);
    const over = new Vector3(0, 1, 0).applyQuaternion(camera.quaternion).dot(axis) < 0;
    if ((Math.abs(now) > STEEPEST && Math.abs(now) > Math.abs(steep(before))) || over) {
      camera.quaternion.copy(before);
    }
  }

  private readonly down = (event: PointerEvent): void => {
    if (!this.enabled) return;
    this.element?.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  };

  private readonly up = (event: PointerEvent): void => {
    this.pointers.delete(event.pointerId);
  };

  private readonly move = (event: PointerEvent): void => {
    const before = this.pointers.get(event.pointerId);
    if (!this.enabled || !before) return;
    const spread = this.spread();
    const [x, y] = [event.clientX - before.x, event.clientY - before.y];
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.pointers.size === 1) this.turn(x * TURN, y * TURN);
    else {
      // Fingers drag the world; while walking, a drag down moves forward.
      const [right, over] = [-x / this.height / 2, y / this.height / 2];
      const closer = (this.spread() - spread) / this.height;
      const way = this.walks ? new Vector3(right, 0, closer + over) : new Vector3(right, over, closer);
      this.go(way.multiplyScalar(this.reach * this.pace));
    }
    this.changed();
  };

  private readonly wheel = (event: WheelEvent): void => {
    if (!this.enabled) return;
    event.preventDefault();
    this.pace = Math.min(20, Math.max(0.05, this.pace * Math.exp(-Math.sign(event.deltaY) * 0.15)));
    this.changed();
  };

  private get height(): number {
    return this.element?.clientHeight || 1;
  }

  /** The distance of two fingers, in pixels. */
  private spread(): number {
    const [a, b] = [...this.pointers.values()];
    return a && b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  }
}
