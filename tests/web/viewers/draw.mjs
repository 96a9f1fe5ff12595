// Renders a file of gaussians in web viewers: `node draw.mjs JOB.json`.
//
// The job: { width, height, focal, views: { name: world_from_cam }, drawings: [{ name, viewer, file, settings }], out }.
// file: a PLY, or an SPZ for Spark. focal: pixels, equal for x and y; the principal point is the image centre.
// world_from_cam: 12 numbers, rows of [R | t], OpenCV axes. Writes OUT/DRAWING-VIEW.png and prints a line of JSON for each drawing.

import { createReadStream, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { basename, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

import { launchBrowser, report } from '../../../web/tests/browser.mjs';

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const localPath = (path) => fileURLToPath(new URL(path, import.meta.url));
const RENDER_TIMEOUT_MS = 600_000;
const require = createRequire(localPath('../../../web/package.json'));
const ROOTS = { web: localPath('../../../web/node_modules/'), viewers: localPath('./node_modules/') };
const TYPES = { '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm' };

/** A module of the studio's viewer, transpiled to JavaScript. */
function studioModule(name) {
  const ts = require('typescript');
  const source = readFileSync(localPath(`../../../web/src/pages/view/${name}.ts`), 'utf8');
  return ts.transpileModule(source, { compilerOptions: { module: 'esnext', target: 'es2022' } }).outputText;
}

const viewerPage = (number) => `<!doctype html><style>body{margin:0}canvas{display:block}</style>
<canvas width="${job.width}" height="${job.height}"></canvas>
<script type="importmap">{"imports":{"three":"/web/three/build/three.module.js","three/addons/":"/web/three/examples/jsm/",
"@sparkjsdev/spark":"/web/@sparkjsdev/spark/dist/spark.module.js",
"playcanvas":"/viewers/playcanvas/build/playcanvas.mjs",
"@mkkellogg/gaussian-splats-3d":
"/viewers/@mkkellogg/gaussian-splats-3d/build/gaussian-splats-3d.module.js"}}</script>
<script type="module">
const job = ${JSON.stringify({ ...job, ...job.drawings[number] })};
const [FILE, FILE_NAME] = ['/file/${number}', '${basename(job.drawings[number].file)}'];
const canvas = document.querySelector('canvas');
const settings = job.settings ?? {};
const [NEAR, FAR] = [0.01, 1000];
const SORT_TIMEOUT_MS = 120_000;
const fov = (2 * Math.atan(job.height / 2 / job.focal) * 180) / Math.PI;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
/** Column-major world from camera, OpenGL axes (x right, y up, z back). */
const toColumnMajor = ([a, b, c, x, d, e, f, y, g, h, i, z]) => [a, d, g, 0, -b, -e, -h, 0, -c, -f, -i, 0, x, y, z, 1];

async function createThree() {
  const THREE = await import('three');
  const gl = new THREE.WebGLRenderer({ canvas, antialias: false, preserveDrawingBuffer: true });
  gl.setPixelRatio(1);
  gl.setSize(job.width, job.height);
  gl.setClearColor(0x000000, 1);
  const camera = new THREE.PerspectiveCamera(fov, job.width / job.height, NEAR, FAR);
  const setPose = (pose) => {
    new THREE.Matrix4().fromArray(toColumnMajor(pose)).decompose(camera.position, camera.quaternion, camera.scale);
    camera.updateMatrixWorld(true);
  };
  return { THREE, gl, camera, setPose };
}

async function createSpark(createRenderer) {
  const { THREE, gl, camera, setPose } = await createThree();
  const { SplatMesh } = await import('@sparkjsdev/spark');
  const scene = new THREE.Scene();
  const spark = createRenderer({ renderer: gl, enableLod: false, ...settings.renderer });
  const fileBytes = new Uint8Array(await (await fetch(FILE)).arrayBuffer());
  const splats = new SplatMesh({ fileBytes, fileName: FILE_NAME, extSplats: true });
  await splats.initialized;
  scene.add(spark, splats, camera);
  return async (pose) => {
    setPose(pose);
    const before = spark.lastSortTime;
    const pixel = new Uint8Array(4);
    for (let start = performance.now(); performance.now() < start + SORT_TIMEOUT_MS;) {
      gl.render(scene, camera);
      gl.getContext().readPixels(0, 0, 1, 1, 6408, 5121, pixel); // waits for the frame, so that slow machines do not queue frames
      do await sleep(20);
      while (spark.sorting && performance.now() < start + SORT_TIMEOUT_MS);
      const isSorted = !spark.sorting && !spark.sortDirty && spark.lastSortTime !== before;
      if (spark.activeSplats && isSorted) break;
    }
    gl.render(scene, camera);
    return spark.activeSplats;
  };
}

const VIEWERS = {
  async spark() {
    const { SparkRenderer } = await import('@sparkjsdev/spark');
    return createSpark((options) => new SparkRenderer(options));
  },

  /** Spark with the settings of the studio. */
  async studio() {
    const { referenceRenderer } = await import('/studio/projection');
    return createSpark(referenceRenderer);
  },

  async playcanvas() {
    const pc = await import('playcanvas');
    const options = { antialias: false, preserveDrawingBuffer: true, deviceTypes: ['webgl2'] };
    const app = new pc.Application(canvas, { graphicsDeviceOptions: options });
    app.setCanvasResolution(pc.RESOLUTION_FIXED, job.width, job.height);
    app.graphicsDevice.maxPixelRatio = 1;
    app.autoRender = false;
    const camera = new pc.Entity();
    const gammaCorrection = pc.GAMMA_SRGB;
    const clearColor = new pc.Color(0, 0, 0, 1);
    camera.addComponent('camera', { fov, nearClip: NEAR, farClip: FAR, clearColor, gammaCorrection, toneMapping: pc.TONEMAP_NONE });
    Object.assign(app.scene.gsplat, settings.scene);
    if (settings.modify) app.scene.gsplat.material.getShaderChunks('glsl').set('gsplatModifyPS', settings.modify);
    if (settings.corner) {
      const chunks = app.scene.gsplat.material.getShaderChunks('glsl');
      let corner = pc.ShaderChunks.get(app.graphicsDevice, pc.SHADERLANGUAGE_GLSL).get('gsplatCornerVS');
      for (const [original, replacement] of Object.entries(settings.corner)) {
        if (!corner.includes(original)) throw new Error('PlayCanvas has no ' + original);
        corner = corner.replace(original, replacement);
      }
      chunks.set('gsplatCornerVS', corner);
    }
    app.scene.gsplat.material.update();
    const asset = new pc.Asset(FILE_NAME, 'gsplat', { url: FILE + '?' + FILE_NAME, filename: FILE_NAME });
    await new Promise((resolve, reject) => {
      asset.ready(resolve);
      asset.on('error', reject);
      app.assets.add(asset);
      app.assets.load(asset);
    });
    const entity = new pc.Entity();
    entity.addComponent('gsplat', { asset });
    app.root.addChild(camera);
    app.root.addChild(entity);
    app.start();
    let isCurrent = false;
    app.systems.gsplat.on('frame:ready', (_camera, _layer, ready, loading) => (isCurrent = ready && !loading));
    return async (pose) => {
      const matrix = new pc.Mat4();
      matrix.data.set(toColumnMajor(pose));
      camera.setPosition(matrix.getTranslation());
      camera.setRotation(new pc.Quat().setFromMat4(matrix));
      isCurrent = false;
      for (let frames = 0; frames < 200 && (!isCurrent || frames < 3); frames++) {
        const frameEnd = new Promise((resolve) => app.once('frameend', resolve));
        app.renderNextFrame = true;
        await frameEnd;
        await sleep(20);
      }
      return asset.resource.numSplats ?? asset.resource.gsplatData?.numSplats;
    };
  },

  async mkkellogg() {
    const { gl, camera, setPose } = await createThree();
    const GS = await import('@mkkellogg/gaussian-splats-3d');
    const viewer = new GS.Viewer({
      renderer: gl,
      camera,
      selfDrivenMode: false,
      useBuiltInControls: false,
      sharedMemoryForWorkers: false,
      sceneRevealMode: GS.SceneRevealMode.Instant,
      ...settings.viewer,
    });
    const scene = { format: GS.SceneFormat.Ply, showLoadingUI: false, progressiveLoad: false };
    await viewer.addSplatScene(FILE, { ...scene, ...settings.scene });
    return async (pose) => {
      setPose(pose);
      viewer.update();
      await viewer.sortPromise;
      await viewer.runSplatSort(true, true);
      await viewer.sortPromise;
      viewer.update();
      viewer.render();
      return viewer.splatMesh.getSplatCount();
    };
  },
};

try {
  const draw = await VIEWERS[job.viewer]();
  const images = {};
  let count;
  for (const [name, pose] of Object.entries(job.views)) {
    count = await draw(pose);
    images[name] = canvas.toDataURL('image/png');
  }
  window.outcome = { count, images };
} catch (error) {
  window.outcome = { error: String(error.stack ?? error), images: {} };
}
</script>`;

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
  const [, root, rest] = path.match(/^\/(\w+)\/?(.*)$/) ?? [];
  if (root === 'draw') return response.setHeader('content-type', 'text/html').end(viewerPage(Number(rest)));
  if (root === 'studio') return response.setHeader('content-type', TYPES['.js']).end(studioModule(rest));
  const requestedFile = root === 'file' ? job.drawings[rest]?.file : root in ROOTS && join(ROOTS[root], rest);
  if (!requestedFile || !existsSync(requestedFile)) return response.writeHead(404).end();
  response.setHeader('content-type', TYPES[extname(requestedFile)] ?? 'application/octet-stream');
  createReadStream(requestedFile).pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const link = `http://127.0.0.1:${server.address().port}`;
const chromium = await launchBrowser();
try {
  for (const [number, { name }] of job.drawings.entries()) {
    const start = Date.now();
    const page = await chromium.newPage({ viewport: { width: job.width, height: job.height } });
    const log = [];
    page.on('request', (request) => {
      if (/^https?:/.test(request.url()) && !request.url().startsWith(link)) log.push(`request to ${request.url()}`);
    });
    page.on('pageerror', (error) => log.push(String(error).slice(0, 300)));
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type()) && !/GPU stall|GL Driver/.test(message.text()))
        log.push(message.text().slice(0, 300));
    });
    await page.goto(`${link}/draw/${number}`);
    const timeoutError = () => ({ error: 'timeout: no frame was drawn', images: {} });
    await page.waitForFunction(() => window.outcome, null, { timeout: RENDER_TIMEOUT_MS }).catch(timeoutError);
    const { images, ...outcome } = await page.evaluate(() => window.outcome).then((outcome) => outcome ?? timeoutError());
    for (const [view, image] of Object.entries(images))
      writeFileSync(join(job.out, `${name}-${view}.png`), Buffer.from(image.split(',')[1], 'base64'));
    report({ name, ...outcome, log, seconds: (Date.now() - start) / 1000 });
    await page.close();
  }
} finally {
  await chromium.close();
  server.close();
}
