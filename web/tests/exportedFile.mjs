// Renders a glTF file in three.js, from the front and slightly above: `node exportedFile.mjs FILE.glb IMAGE.png [SIDE]`
// Prints the contents as a line of JSON. The page has no code of the studio.

import { createServer } from 'node:http';
import { createReadStream, existsSync } from 'node:fs';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

import { launchBrowser } from './browser.mjs';

const [, , file, image, side = '640'] = process.argv;
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
  const { scene: model } = await loader.loadAsync('/file');
  const gl = new WebGLRenderer({ canvas: document.querySelector('canvas'), antialias: true, preserveDrawingBuffer: true });
  gl.setSize(${side}, ${side});
  gl.setClearColor(0xffffff);
  const scene = new Scene();
  scene.add(model, new HemisphereLight(0xffffff, 0xbbbbbb, 2.5), new DirectionalLight(0xffffff, 1));
  const box = new Box3().setFromObject(model, true);
  const centre = box.getCenter(new Vector3());
  const diagonal = box.getSize(new Vector3()).length();
  const camera = new PerspectiveCamera(40, 1, diagonal / 100, diagonal * 10);
  camera.position.copy(centre).add(new Vector3(0.35, 0.35, 1).normalize().multiplyScalar(diagonal * 1.35));
  camera.lookAt(centre);
  gl.render(scene, camera);
  let triangles = 0;
  let points = 0;
  model.traverse((object) => {
    if (object.isMesh) triangles += (object.geometry.index ?? object.geometry.attributes.position).count / 3;
    if (object.isPoints) points += object.geometry.attributes.position.count;
  });
  window.report = { triangles, points, box: [box.min.toArray(), box.max.toArray()] };
} catch (error) {
  window.report = { error: String(error) };
}
</script>`;

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
  if (path === '/') return response.setHeader('content-type', 'text/html').end(PAGE);
  const requestedFile = path === '/file' ? file : join(modules, path);
  if (!existsSync(requestedFile)) return response.writeHead(404).end();
  response.setHeader('content-type', TYPES[extname(requestedFile)] ?? 'application/octet-stream');
  createReadStream(requestedFile).pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const chromium = await launchBrowser();
try {
  const page = await chromium.newPage({ viewport: { width: Number(side), height: Number(side) } });
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction(() => window.report, null, { timeout: 120_000 });
  console.log(JSON.stringify(await page.evaluate(() => window.report)));
  await page.locator('canvas').screenshot({ path: image });
} finally {
  await chromium.close();
  server.close();
}
