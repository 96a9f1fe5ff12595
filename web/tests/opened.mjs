// A glTF as three.js opens it: `node opened.mjs FILE.glb PICTURE.png [SIDE]`, from before and a little above.
// Says what it found as a line of JSON. Nothing of ours is in the page but the file.

import { createServer } from 'node:http';
import { createReadStream, existsSync } from 'node:fs';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

import { browser } from './browser.mjs';

const [, , file, picture, side = '640'] = process.argv;
const modules = fileURLToPath(new URL('../node_modules/', import.meta.url));
const TYPES = { '.js': 'text/javascript', '.wasm': 'application/wasm', '.html': 'text/html' };
const PAGE = `<!doctype html><style>body{margin:0}</style><canvas></canvas>
<script type="importmap">{"imports":{"three":"/three/build/three.module.js","three/addons/":"/three/examples/jsm/"}}</script>
<script type="module">
import { Box3, DirectionalLight, HemisphereLight, PerspectiveCamera, Scene, Vector3, WebGLRenderer } from 'three';
import { GLTFLoader } from 'three/addons/loaders/GLTFLoader.js';
import { DRACOLoader } from 'three/addons/loaders/DRACOLoader.js';
import { MeshoptDecoder } from 'three/addons/libs/meshopt_decoder.module.js';
const draco = new DRACOLoader().setDecoderPath('/three/examples/jsm/libs/draco/gltf/');
const loader = new GLTFLoader().setDRACOLoader(draco).setMeshoptDecoder(MeshoptDecoder);
try {
  const { scene: opened } = await loader.loadAsync('/file');
  const gl = new WebGLRenderer({ canvas: document.querySelector('canvas'), antialias: true, preserveDrawingBuffer: true });
  gl.setSize(${side}, ${side});
  gl.setClearColor(0xffffff);
  const scene = new Scene();
  scene.add(opened, new HemisphereLight(0xffffff, 0xbbbbbb, 2.5), new DirectionalLight(0xffffff, 1));
  const box = new Box3().setFromObject(opened, true);
  const middle = box.getCenter(new Vector3());
  const reach = box.getSize(new Vector3()).length();
  const camera = new PerspectiveCamera(40, 1, reach / 100, reach * 10);
  camera.position.copy(middle).add(new Vector3(0.35, 0.35, 1).normalize().multiplyScalar(reach * 1.35));
  camera.lookAt(middle);
  gl.render(scene, camera);
  let triangles = 0;
  let points = 0;
  opened.traverse((one) => {
    if (one.isMesh) triangles += (one.geometry.index ?? one.geometry.attributes.position).count / 3;
    if (one.isPoints) points += one.geometry.attributes.position.count;
  });
  window.found = { triangles, points, box: [box.min.toArray(), box.max.toArray()] };
} catch (error) {
  window.found = { error: String(error) };
}
</script>`;

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
  if (path === '/') return response.setHeader('content-type', 'text/html').end(PAGE);
  const wanted = path === '/file' ? file : join(modules, path);
  if (!existsSync(wanted)) return response.writeHead(404).end();
  response.setHeader('content-type', TYPES[extname(wanted)] ?? 'application/octet-stream');
  createReadStream(wanted).pipe(response);
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const chromium = await browser();
try {
  const page = await chromium.newPage({ viewport: { width: Number(side), height: Number(side) } });
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction(() => window.found, null, { timeout: 120_000 });
  console.log(JSON.stringify(await page.evaluate(() => window.found)));
  await page.locator('canvas').screenshot({ path: picture });
} finally {
  await chromium.close();
  server.close();
}
