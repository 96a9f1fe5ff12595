// One canvas of splats: what is on it, and what comes to it next, without a moment of nothing in between.

import type { SparkRenderer, SplatMesh } from '@sparkjsdev/spark';
import {
  Box3,
  Box3Helper,
  type Camera,
  type Intersection,
  type Material,
  Raycaster,
  type Scene,
  Vector2,
  Vector3,
  type WebGLRenderer,
} from 'three';

import { sentence } from '../../lib/errors';
import type { Vector } from '../../geometry/vector';
import { type Box, contains } from '../../geometry/cropBox';
import { probe } from './probe';
import { referenceRenderer } from './projection';
import { fetchSplats, type Look, Looks } from './splatStyle';

/** `left` parts of a large scene are not drawn, since this device is slow with those that are. */
export type Loading =
  { state: 'loading'; part: number } | { state: 'ready'; left: number } | { state: 'failed'; text: string };

/** A scene: the addresses of its parts, what covers most of it first. */
export interface Wanted {
  name: string;
  parts: string[];
}

const LONGEST_SORT = 3000; // ms
const SLOW = 800; // ms from a part's coming to its picture: a device that takes longer is given no more

export class SplatStage {
  private readonly spark: SparkRenderer;
  private readonly looks: Looks;
  private readonly leaving = new AbortController();
  private readonly byProcessor: boolean; // one part more would keep the page waiting for seconds
  private meshes: SplatMesh[] = []; // parts of one scene
  private name: string | null = null;
  private wanted: Wanted | null = null;
  private loading = false;
  private patient = false; // whoever looks wants all parts, however long that takes
  private before: number | null = null; // Spark's mark of what was on the screen when the last part came
  private since: number | null = null; // when that part was first drawn
  private settled: (() => void) | null = null; // what waits for its picture, or for a newer scene
  private box: Box | null = null;
  private frame: Box3Helper | null = null;

  constructor(
    gl: WebGLRenderer,
    private readonly scene: Scene,
    private readonly invalidate: () => void,
    private readonly tell: (loading: Loading) => void,
    antialiased: boolean,
  ) {
    forgive(gl, this.leaving.signal);
    this.byProcessor = byProcessor(gl);
    this.spark = referenceRenderer({ renderer: gl, onDirty: invalidate, enableLod: false });
    this.looks = new Looks(this.spark, antialiased);
    scene.add(this.spark);
  }

  /** Show this scene as soon as it is here; until then, what is shown stays. Of several, the newest. */
  want(wanted: Wanted): void {
    this.wanted = wanted;
    this.settled?.();
    if (!this.loading) void this.load();
  }

  /** Draw all parts, on a slow device too. */
  all(): void {
    this.patient = true;
    if (this.wanted) this.want({ ...this.wanted });
  }

  look(look: Look): void {
    this.looks.show(look, this.meshes);
    this.invalidate();
  }

  /** Hide what lies outside of the box; null shows all. */
  crop(box: Box | null): void {
    this.box = box;
    this.looks.crop(box, this.meshes);
    this.drop(this.frame);
    this.frame = null;
    if (box) {
      this.frame = new Box3Helper(new Box3(new Vector3(...box[0]), new Vector3(...box[1])), 0xf2b63d);
      this.scene.add(this.frame);
    }
    this.invalidate();
  }

  /** Before each frame. */
  stand(camera: Camera, centre: Vector, reach: number): void {
    this.looks.stand(camera, centre, reach);
    probe.frames++;
    probe.splats = this.spark.activeSplats;
    this.since ??= performance.now();
    if (this.spark.display.mappingVersion === this.before || probe.splats === 0) return;
    probe.loaded = this.name;
    this.settled?.();
  }

  /** The point of the scene under a place on the canvas, -1..1 to the right and up. */
  pick(x: number, y: number, camera: Camera): Vector | null {
    const caster = new Raycaster();
    caster.setFromCamera(new Vector2(x, y), camera);
    const met: Intersection[] = [];
    for (const mesh of this.meshes) mesh.raycast(caster, met);
    const seen = met
      .map((one) => ({ distance: one.distance, point: one.point.toArray() }))
      .filter((one) => !this.box || contains(this.box, one.point));
    return seen.reduce((a, b) => (b.distance < a.distance ? b : a), seen[0] ?? { distance: 0, point: null })
      .point;
  }

  dispose(): void {
    this.leaving.abort();
    this.wanted = null;
    this.settled?.();
    this.drop(this.frame);
    for (const mesh of this.meshes) this.forget(mesh);
    this.scene.remove(this.spark);
    this.spark.geometry.dispose();
    this.spark.material.dispose();
    void this.end();
    Object.assign(probe, { loaded: null, splats: 0 });
  }

  /** Spark's worker is ended between two sortings: one that is cut off is an error that nobody catches. */
  private async end(): Promise<void> {
    for (let waited = 0; this.spark.sorting && waited < LONGEST_SORT; waited += 100) {
      await new Promise((done) => setTimeout(done, 100));
    }
    this.spark.dispose();
  }

  private async load(): Promise<void> {
    this.loading = true;
    for (let done: Wanted | null = null; this.wanted && this.wanted !== done;) {
      done = this.wanted;
      try {
        await this.bring(done);
      } catch (error) {
        if (this.leaving.signal.aborted) break;
        if (this.wanted !== done) continue; // a newer one has taken its place on the server
        // An older scene on the screen is better than words of a newer one that failed.
        if (!this.meshes.length) this.tell({ state: 'failed', text: sentence(error) });
      }
    }
    this.loading = false;
  }

  /** Part after part. A scene on the screen gives way when as much of the newer one is here. */
  private async bring(wanted: Wanted): Promise<void> {
    const { name, parts } = wanted;
    const empty = this.meshes.length === 0;
    const same = this.name === name;
    const enough = same ? 0 : Math.min(this.meshes.length, parts.length);
    const fresh: SplatMesh[] = [];
    try {
      for (let i = same ? this.meshes.length : 0; i < parts.length; i++) {
        if (empty && i === 0) this.tell({ state: 'loading', part: 0 });
        fresh.push(
          await fetchSplats(parts[i] as string, this.leaving.signal, (part) => {
            if (empty && i === 0) this.tell({ state: 'loading', part });
          }),
        );
        if (fresh.length < enough) continue;
        this.show(fresh.splice(0), name);
        this.tell({ state: 'ready', left: 0 });
        if (i + 1 === parts.length || ((await this.inTime()) && this.wanted === wanted)) continue;
        if (this.wanted === wanted) this.tell({ state: 'ready', left: parts.length - i - 1 });
        return;
      }
    } finally {
      for (const mesh of fresh) mesh.dispose();
    }
  }

  /** Add to the scene on the screen, or put in its place. */
  private show(fresh: SplatMesh[], name: string): void {
    for (const mesh of fresh) {
      this.looks.dress(mesh);
      this.scene.add(mesh);
    }
    if (this.name === name) this.meshes.push(...fresh);
    else {
      for (const mesh of this.meshes) this.forget(mesh); // Spark draws its own copy until the new one is sorted
      this.meshes = fresh;
      this.name = name;
    }
    this.before = this.spark.display.mappingVersion;
    this.since = null;
    this.invalidate();
  }

  /** When what came last is on the screen: whether that went fast, or all is wanted anyway. */
  private async inTime(): Promise<boolean> {
    await new Promise<void>((done) => (this.settled = done));
    this.settled = null;
    return this.patient || (!this.byProcessor && performance.now() - (this.since ?? 0) < SLOW);
  }

  private forget(mesh: SplatMesh): void {
    this.scene.remove(mesh);
    mesh.dispose();
  }

  private drop(frame: Box3Helper | null): void {
    if (!frame) return;
    this.scene.remove(frame);
    frame.geometry.dispose();
    (frame.material as Material).dispose();
  }
}

/** Whether WebGL is there, but no graphics card behind it. */
function byProcessor(gl: WebGLRenderer): boolean {
  const context = gl.getContext();
  const says = context.getExtension('WEBGL_debug_renderer_info');
  const name: unknown = context.getParameter(says ? says.UNMASKED_RENDERER_WEBGL : context.RENDERER);
  return /swiftshader|llvmpipe|software|basic render/i.test(String(name));
}

/** A canvas that goes away takes with it what Spark is just reading from it; that is no error then. */
function forgive(gl: WebGLRenderer, leaving: AbortSignal): void {
  const read = gl.readRenderTargetPixelsAsync.bind(gl);
  gl.readRenderTargetPixelsAsync = (...what) =>
    read(...what).catch((error: unknown) => {
      if (!leaving.aborted) throw error;
      return new Promise(() => undefined);
    });
}
