// The splats on a canvas: a newer scene replaces the older one without a blank frame.

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

const MAX_SORT_WAIT_MS = 3000;
const SLOW_PART_MS = 800; // from arrival to first frame: slower devices load no further parts

export class SplatScene {
  private readonly spark: SparkRenderer;
  private readonly style: SplatStyle;
  private readonly disposal = new AbortController();
  private readonly isSoftwareRendered: boolean; // one more part would block the page for seconds
  private meshes: SplatMesh[] = []; // parts of one scene
  private name: string | null = null;
  private source: SceneSource | null = null;
  private loading = false;
  private drawsAll = false; // draw all parts on slow devices too
  private versionBefore: number | null = null; // Spark's mapping version when the last part arrived
  private firstFrameTime: number | null = null; // time of the first frame with that part
  private onPartDrawn: (() => void) | null = null; // resolves at the first frame of the part, or for a newer scene
  private box: Box | null = null;
  private frame: Box3Helper | null = null;

  constructor(
    gl: WebGLRenderer,
    private readonly scene: Scene,
    private readonly invalidate: () => void,
    private readonly onLoading: (loading: Loading) => void,
    antialiased: boolean,
  ) {
    ignoreInterruptedReads(gl, this.disposal.signal);
    this.isSoftwareRendered = isSoftwareRendered(gl);
    this.spark = referenceRenderer({ renderer: gl, onDirty: invalidate, enableLod: false });
    this.style = new SplatStyle(this.spark, antialiased);
    scene.add(this.spark);
  }

  /** Loads a scene, then shows it in place of the older one. The newest request wins. */
  load(source: SceneSource): void {
    this.source = source;
    this.onPartDrawn?.();
    if (!this.loading) void this.loadNewest();
  }

  /** Draws all parts, on slow devices too. */
  drawAll(): void {
    this.drawsAll = true;
    if (this.source) this.load({ ...this.source });
  }

  setLook(look: Look): void {
    this.style.show(look, this.meshes);
    this.invalidate();
  }

  /** Hides splats outside the box; null shows all. */
  crop(box: Box | null): void {
    this.box = box;
    this.style.crop(box, this.meshes);
    this.removeFrame(this.frame);
    this.frame = null;
    if (box) {
      this.frame = new Box3Helper(new Box3(new Vector3(...box[0]), new Vector3(...box[1])), 0xf2b63d);
      this.scene.add(this.frame);
    }
    this.invalidate();
  }

  /** Called before each frame. */
  beforeFrame(camera: Camera, centre: Vector, diagonal: number): void {
    this.style.updateDepthRange(camera, centre, diagonal);
    probe.frames++;
    probe.splats = this.spark.activeSplats;
    this.firstFrameTime ??= performance.now();
    if (this.spark.display.mappingVersion === this.versionBefore || probe.splats === 0) return;
    probe.loaded = this.name;
    this.onPartDrawn?.();
  }

  /** The scene point at normalized canvas coordinates (-1..1, right and up), or null. */
  pick(x: number, y: number, camera: Camera): Vector | null {
    const caster = new Raycaster();
    caster.setFromCamera(new Vector2(x, y), camera);
    const hits: Intersection[] = [];
    for (const mesh of this.meshes) mesh.raycast(caster, hits);
    const visibleHits = hits
      .map((hit) => ({ distance: hit.distance, point: hit.point.toArray() }))
      .filter((hit) => !this.box || contains(this.box, hit.point));
    return visibleHits.reduce(
      (a, b) => (b.distance < a.distance ? b : a),
      visibleHits[0] ?? { distance: 0, point: null },
    ).point;
  }

  dispose(): void {
    this.disposal.abort();
    this.source = null;
    this.onPartDrawn?.();
    this.removeFrame(this.frame);
    for (const mesh of this.meshes) this.removeMesh(mesh);
    this.scene.remove(this.spark);
    this.spark.geometry.dispose();
    this.spark.material.dispose();
    void this.disposeRenderer();
    Object.assign(probe, { loaded: null, splats: 0 });
  }

  /** Ends Spark's worker between two sorts: an interrupted sort raises an uncaught error. */
  private async disposeRenderer(): Promise<void> {
    for (let waited = 0; this.spark.sorting && waited < MAX_SORT_WAIT_MS; waited += 100) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    this.spark.dispose();
  }

  private async loadNewest(): Promise<void> {
    this.loading = true;
    for (let latest: SceneSource | null = null; this.source && this.source !== latest;) {
      latest = this.source;
      try {
        await this.loadParts(latest);
      } catch (error) {
        if (this.disposal.signal.aborted) break;
        if (this.source !== latest) continue; // a newer checkpoint replaced it on the server
        // Keep an older scene on the screen instead of an error.
        if (!this.meshes.length) this.onLoading({ state: 'failed', text: errorMessage(error) });
      }
    }
    this.loading = false;
  }

  /** Loads part after part. A newer scene replaces the older one once it has as many parts. */
  private async loadParts(source: SceneSource): Promise<void> {
    const { name, parts } = source;
    const isEmpty = this.meshes.length === 0;
    const isSameScene = this.name === name;
    const minParts = isSameScene ? 0 : Math.min(this.meshes.length, parts.length);
    const newMeshes: SplatMesh[] = [];
    try {
      for (let i = isSameScene ? this.meshes.length : 0; i < parts.length; i++) {
        if (isEmpty && i === 0) this.onLoading({ state: 'loading', part: 0 });
        newMeshes.push(
          await fetchSplats(parts[i] as string, this.disposal.signal, (part) => {
            if (isEmpty && i === 0) this.onLoading({ state: 'loading', part });
          }),
        );
        if (newMeshes.length < minParts) continue;
        this.show(newMeshes.splice(0), name);
        this.onLoading({ state: 'ready', left: 0 });
        if (i + 1 === parts.length || ((await this.isFastEnough()) && this.source === source)) continue;
        if (this.source === source) this.onLoading({ state: 'ready', left: parts.length - i - 1 });
        return;
      }
    } finally {
      for (const mesh of newMeshes) mesh.dispose();
    }
  }

  /** Adds meshes to the current scene, or replaces it. */
  private show(newMeshes: SplatMesh[], name: string): void {
    for (const mesh of newMeshes) {
      this.style.dress(mesh);
      this.scene.add(mesh);
    }
    if (this.name === name) this.meshes.push(...newMeshes);
    else {
      for (const mesh of this.meshes) this.removeMesh(mesh); // Spark draws its own copy until the new meshes are sorted
      this.meshes = newMeshes;
      this.name = name;
    }
    this.versionBefore = this.spark.display.mappingVersion;
    this.firstFrameTime = null;
    this.invalidate();
  }

  /** Waits until the last part is drawn. Returns whether to load further parts. */
  private async isFastEnough(): Promise<boolean> {
    await new Promise<void>((resolve) => (this.onPartDrawn = resolve));
    this.onPartDrawn = null;
    return (
      this.drawsAll ||
      (!this.isSoftwareRendered && performance.now() - (this.firstFrameTime ?? 0) < SLOW_PART_MS)
    );
  }

  private removeMesh(mesh: SplatMesh): void {
    this.scene.remove(mesh);
    mesh.dispose();
  }

  private removeFrame(frame: Box3Helper | null): void {
    if (!frame) return;
    this.scene.remove(frame);
    frame.geometry.dispose();
    (frame.material as Material).dispose();
  }
}

/** Whether WebGL runs in software, without a GPU. */
function isSoftwareRendered(gl: WebGLRenderer): boolean {
  const context = gl.getContext();
  const debugInfo = context.getExtension('WEBGL_debug_renderer_info');
  const name: unknown = context.getParameter(
    debugInfo ? debugInfo.UNMASKED_RENDERER_WEBGL : context.RENDERER,
  );
  return /swiftshader|llvmpipe|software|basic render/i.test(String(name));
}

/** Ignores errors of pixel reads that a disposed canvas interrupts. */
function ignoreInterruptedReads(gl: WebGLRenderer, disposal: AbortSignal): void {
  const read = gl.readRenderTargetPixelsAsync.bind(gl);
  gl.readRenderTargetPixelsAsync = (...parameters) =>
    read(...parameters).catch((error: unknown) => {
      if (!disposal.aborted) throw error;
      return new Promise(() => undefined);
    });
}
