// One canvas of splats: what is on it, and what comes to it next, without a moment of nothing in between.

import { SparkRenderer, type SplatMesh } from '@sparkjsdev/spark';
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

import { sentence } from '../api/client';
import type { Vector } from '../api/shown';
import { type Box, contains } from './crop';
import { probe } from './probe';
import { fetchSplats, type Look, Looks } from './splats';

export type Loading =
  { state: 'loading'; part: number } | { state: 'ready' } | { state: 'failed'; text: string };

/** A scene; of a large one also the address of a part that is soon there, for an empty screen. */
export interface Wanted {
  url: string;
  name: string;
  first: string | null;
}

const LONGEST_SORT = 3000; // ms

export class SplatStage {
  private readonly spark: SparkRenderer;
  private readonly looks: Looks;
  private readonly leaving = new AbortController();
  private mesh: SplatMesh | null = null;
  private name: string | null = null;
  private wanted: Wanted | null = null;
  private loading = false;
  private before: number | null = null; // Spark's mark of what was on the screen when the scene came
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
    this.spark = new SparkRenderer({ renderer: gl, onDirty: invalidate, enableLod: false });
    this.looks = new Looks(this.spark, antialiased);
    scene.add(this.spark);
  }

  /** Show this scene as soon as it is here; until then, what is shown stays. Of several, the newest. */
  want(wanted: Wanted): void {
    this.wanted = wanted;
    if (!this.loading) void this.load();
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
    if (this.spark.display.mappingVersion !== this.before && probe.splats > 0) probe.loaded = this.name;
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

  private get meshes(): SplatMesh[] {
    return this.mesh ? [this.mesh] : [];
  }

  private async load(): Promise<void> {
    this.loading = true;
    while (this.wanted && this.wanted.name !== this.name) {
      const { url, name, first } = this.wanted;
      try {
        if (!this.mesh && first) await this.bring(first, `part of ${name}`);
        await this.bring(url, name);
      } catch (error) {
        if (this.leaving.signal.aborted) break;
        if (this.wanted.name !== name) continue; // a newer one has taken its place on the server
        this.wanted = null;
        // An older scene on the screen is better than words of a newer one that failed.
        if (!this.mesh) this.tell({ state: 'failed', text: sentence(error) });
      }
    }
    this.loading = false;
  }

  private async bring(url: string, name: string): Promise<void> {
    const empty = this.mesh === null;
    if (empty) this.tell({ state: 'loading', part: 0 });
    const mesh = await fetchSplats(url, this.leaving.signal, (part) => {
      if (empty) this.tell({ state: 'loading', part });
    });
    this.swap(mesh, name);
    this.tell({ state: 'ready' });
  }

  private swap(mesh: SplatMesh, name: string): void {
    const before = this.mesh;
    this.looks.dress(mesh);
    this.scene.add(mesh);
    if (before) this.forget(before); // Spark draws its own copy until the new one is sorted
    this.mesh = mesh;
    this.name = name;
    this.before = this.spark.display.mappingVersion;
    this.invalidate();
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

/** A canvas that goes away takes with it what Spark is just reading from it; that is no error then. */
function forgive(gl: WebGLRenderer, leaving: AbortSignal): void {
  const read = gl.readRenderTargetPixelsAsync.bind(gl);
  gl.readRenderTargetPixelsAsync = (...what) =>
    read(...what).catch((error: unknown) => {
      if (!leaving.aborted) throw error;
      return new Promise(() => undefined);
    });
}
