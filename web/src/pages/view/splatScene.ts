// The splats on a canvas: a newer scene replaces the shown one without a blank frame.

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

import { errorMessage } from '../../lib/errors';
import type { Vector } from '../../geometry/vector';
import { type Box, contains } from '../../geometry/cropBox';
import { probe } from './probe';
import { referenceRenderer } from './projection';
import { fetchSplats, type Look, SplatStyle } from './splatStyle';

/** `left`: parts of a large scene that are not drawn because the device is slow. */
export type Loading =
  { state: 'loading'; part: number } | { state: 'ready'; left: number } | { state: 'failed'; text: string };

/** A scene: the addresses of its parts, the largest first. */
export interface SceneSource {
  name: string;
  parts: string[];
}

const LONGEST_SORT = 3000; // ms
const SLOW_PART_MS = 800; // from arrival to first frame: slower devices load no further parts

export class SplatScene {
  private readonly spark: SparkRenderer;
  private readonly style: SplatStyle;
  private readonly leaving = new AbortController();
  private readonly byProcessor: boolean; // one more part would block the page for seconds
  private meshes: SplatMesh[] = []; // parts of one scene
  private name: string | null = null;
  private wanted: SceneSource | null = null;
  private loading = false;
  private patient = false; // draw all parts on slow devices too
  private before: number | null = null; // Spark's mapping version when the last part arrived
  private since: number | null = null; // time of the first frame with that part
  private settled: (() => void) | null = null; // resolves at the first frame of the part, or for a newer scene
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
    this.style = new SplatStyle(this.spark, antialiased);
    scene.add(this.spark);
  }

  /** Loads a scene and then replaces the shown one. Of several requests the newest wins. */
  want(wanted: SceneSource): void {
    this.wanted = wanted;
    this.settled?.();
    if (!this.loading) void this.load();
  }

  /** Draws all parts, on slow devices too. */
  all(): void {
    this.patient = true;
    if (this.wanted) this.want({ ...this.wanted });
  }

  look(look: Look): void {
    this.style.show(look, this.meshes);
    this.invalidate();
  }

  /** Hides splats outside the box; null shows all. */
  crop(box: Box | null): void {
    this.box = box;
    this.style.crop(box, this.meshes);
    this.drop(this.frame);
    this.frame = null;
    if (box) {
      this.frame = new Box3Helper(new Box3(new Vector3(...box[0]), new Vector3(...box[1])), 0xf2b63d);
      this.scene.add(this.frame);
    }
    this.invalidate();
  }

  /** Called before each frame. */
  stand(camera: Camera, centre: Vector, reach: number): void {
    this.style.stand(camera, centre, reach);
    probe.frames++;
    probe.splats = this.spark.activeSplats;
    this.since ??= performance.now();
    if (this.spark.display.mappingVersion === this.before || probe.splats === 0) return;
    probe.loaded = this.name;
    this.settled?.();
  }

  /** The scene point at normalized canvas coordinates (-1..1, right and up), or null. */
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

  /** Ends Spark's worker between two sorts: an interrupted sort raises an uncaught error. */
  private async end(): Promise<void> {
    for (let waited = 0; this.spark.sorting && waited < LONGEST_SORT; waited += 100) {
      await new Promise((done) => setTimeout(done, 100));
    }
    this.spark.dispose();
  }

  private async load(): Promise<void> {
    this.loading = true;
    for (let done: SceneSource | null = null; this.wanted && this.wanted !== done;) {
      done = this.wanted;
      try {
        await this.bring(done);
      } catch (error) {
        if (this.leaving.signal.aborted) break;
        if (this.wanted !== done) continue; // a newer checkpoint replaced it on the server
        // Keep an older scene on the screen instead of an error.
        if (!this.meshes.length) this.tell({ state: 'failed', text: errorMessage(error) });
      }
    }
    this.loading = false;
  }

  /** Loads part after part. The shown scene is replaced once as many parts of the newer one are loaded. */
  private async bring(wanted: SceneSource): Promise<void> {
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

  /** Adds meshes to the shown scene, or replaces it. */
  private show(fresh: SplatMesh[], name: string): void {
    for (const mesh of fresh) {
      this.style.dress(mesh);
      this.scene.add(mesh);
    }
    if (this.name === name) this.meshes.push(...fresh);
    else {
      for (const mesh of this.meshes) this.forget(mesh); // Spark draws its own copy until the new meshes are sorted
      this.meshes = fresh;
      this.name = name;
    }
    this.before = this.spark.display.mappingVersion;
    this.since = null;
    this.invalidate();
  }

  /** Waits until the last part is drawn. Returns whether to load further parts. */
  private async inTime(): Promise<boolean> {
    await new Promise<void>((done) => (this.settled = done));
    this.settled = null;
    return this.patient || (!this.byProcessor && performance.now() - (this.since ?? 0) < SLOW_PART_MS);
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

/** Whether WebGL runs in software, without a GPU. */
function byProcessor(gl: WebGLRenderer): boolean {
  const context = gl.getContext();
  const says = context.getExtension('WEBGL_debug_renderer_info');
  const name: unknown = context.getParameter(says ? says.UNMASKED_RENDERER_WEBGL : context.RENDERER);
  return /swiftshader|llvmpipe|software|basic render/i.test(String(name));
}

/** Ignores errors of pixel reads that a disposed canvas interrupts. */
function forgive(gl: WebGLRenderer, leaving: AbortSignal): void {
  const read = gl.readRenderTargetPixelsAsync.bind(gl);
  gl.readRenderTargetPixelsAsync = (...what) =>
    read(...what).catch((error: unknown) => {
      if (!leaving.aborted) throw error;
      return new Promise(() => undefined);
    });
}
