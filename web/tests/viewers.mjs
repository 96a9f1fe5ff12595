// Files of many formats as three.js, Spark and three's own gaussians open them: `node viewers.mjs JOBS.json`.
//
// A job is { name, file, viewer, eye, target, up, fov, reach, width, height, picture }; the camera is in the unit of the
// file. Tells a line of JSON for each: what was found, and how large. Nothing of ours is in the page but the file.

import { createReadStream, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

import { browser, tell } from './browser.mjs';

const jobs = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const modules = fileURLToPath(new URL('../node_modules/', import.meta.url));
const TYPES = { '.js': 'text/javascript', '.wasm': 'application/wasm', '.png': 'image/png' };
// three's own gaussians are drawn by its newer renderer alone, which has classes of its own.
const build = (job) => `/three/build/three.${job.viewer === 'khr' ? 'webgpu' : 'module'}.js`;

const page = (job) => `<!doctype html><style>body{margin:0}</style>
<script type="importmap">{"imports":{"three":"${build(job)}","three/webgpu":"/three/build/three.webgpu.js",
"three/tsl":"/three/build/three.tsl.js","three/addons/":"/three/examples/jsm/",
"@sparkjsdev/spark":"/@sparkjsdev/spark/dist/spark.module.js"}}</script>
<script type="module">
import * as THREE from 'three';
const job = ${JSON.stringify(job)};
const from = async (path, name) => (await import('three/addons/' + path))[name];
const loader = async (name) => new (await from('loaders/' + name + '.js', name))();
const url = '/file/' + job.number + '/' + encodeURIComponent(job.base);
const cloud = (geometry) =>
  new THREE.Points(geometry, new THREE.PointsMaterial({ vertexColors: geometry.hasAttribute('color') }));
const lit = (geometry, map) => {
  if (!geometry.hasAttribute('normal')) geometry.computeVertexNormals();
  const vertexColors = !map && geometry.hasAttribute('color');
  return new THREE.Mesh(geometry, new THREE.MeshLambertMaterial({ map, vertexColors }));
};

const sun = () => {
  const light = new THREE.DirectionalLight(0xffffff, 2);
  light.position.set(...job.up);
  return light;
};

const OPENERS = {
  async gltf() {
    const draco = await from('loaders/DRACOLoader.js', 'DRACOLoader');
    const packed = await from('libs/meshopt_decoder.module.js', 'MeshoptDecoder');
    const gltf = (await loader('GLTFLoader')).setMeshoptDecoder(packed);
    gltf.setDRACOLoader(new draco().setDecoderPath('/three/examples/jsm/libs/draco/gltf/'));
    return (await gltf.loadAsync(url)).scene;
  },
  async khr() {
    const gltf = await loader('GLTFLoader');
    const plugin = 'GLTFGaussianSplatLoaderExtension';
    const Extension = await from('loaders/' + plugin + '.js', plugin);
    gltf.register((parser) => new Extension(parser));
    return (await gltf.loadAsync(url)).scene;
  },
  async spark() {
    const { SplatMesh } = await import('@sparkjsdev/spark');
    const fileBytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
    const splats = new SplatMesh({ fileBytes, fileName: job.base });
    await splats.initialized;
    return splats;
  },
  async obj() {
    const materials = await (await loader('MTLLoader')).setPath('/file/' + job.number + '/').loadAsync(job.library);
    return (await loader('OBJLoader')).setMaterials(materials).loadAsync(url);
  },
  async stl() {
    return lit(await (await loader('STLLoader')).loadAsync(url));
  },
  async fbx() {
    return (await loader('FBXLoader')).loadAsync(url);
  },
  async usd() {
    return (await loader('USDLoader')).loadAsync(url);
  },
  async ply() {
    const geometry = await (await loader('PLYLoader')).loadAsync(url);
    if (!geometry.index) return cloud(geometry);
    if (!job.texture) return lit(geometry);
    const map = await new THREE.TextureLoader().loadAsync('/file/' + job.number + '/' + job.texture);
    map.colorSpace = THREE.SRGBColorSpace;
    return lit(geometry, map);
  },
  async xyz() {
    return cloud(await (await loader('XYZLoader')).loadAsync(url));
  },
};

function found(opened) {
  let [triangles, points, gaussians] = [0, 0, opened.packedSplats?.numSplats ?? 0];
  opened.traverse((one) => {
    const at = one.geometry?.attributes.position;
    if (one.isGaussianSplat || one.constructor.name === 'GaussianSplat') gaussians += one.splatGeometry?.attributes.position.count ?? 0;
    else if (one.isPoints) points += at.count;
    else if (one.isMesh && at && !one.packedSplats) triangles += (one.geometry.index ?? at).count / 3;
  });
  const box = triangles + points ? new THREE.Box3().setFromObject(opened, true) : null;
  return { triangles, points, gaussians, box: box && [box.min.toArray(), box.max.toArray()] };
}

async function renderer() {
  const gl = job.viewer === 'khr'
    ? new THREE.WebGPURenderer({ forceWebGL: true, antialias: true })
    : new THREE.WebGLRenderer({ antialias: job.viewer !== 'spark', preserveDrawingBuffer: true });
  await gl.init?.();
  // three takes the display colours of gaussians for linear light: shown as they are, they are right.
  if (job.viewer === 'khr') gl.outputColorSpace = THREE.LinearSRGBColorSpace;
  gl.setSize(job.width, job.height);
  gl.setClearColor(0xffffff);
  document.body.append(gl.domElement);
  return gl;
}

const rest = (ms) => new Promise((done) => setTimeout(done, ms));
try {
  const gl = await renderer();
  const opened = await OPENERS[job.viewer]();
  const scene = new THREE.Scene();
  // White from all sides shows a matt surface in the colours of its texture; a bare one needs a side to be lit from.
  scene.add(opened, new THREE.AmbientLight(0xffffff, job.viewer === 'stl' ? 1 : Math.PI));
  if (job.viewer === 'stl') scene.add(sun());
  if (job.viewer === 'spark') {
    const { SparkRenderer } = await import('@sparkjsdev/spark');
    scene.add(new SparkRenderer({ renderer: gl }));
  }
  const maps = [];
  opened.traverse((one) => {
    for (const material of [one.material ?? []].flat()) maps.push(material.map);
    if (one.isPoints) Object.assign(one.material, { size: 3, sizeAttenuation: false });
  });
  for (let waited = 0; waited < 10_000 && maps.some((map) => map && !map.image?.width); waited += 50) await rest(50);
  const camera = new THREE.PerspectiveCamera(job.fov, job.width / job.height, job.reach / 200, job.reach * 20);
  camera.position.set(...job.eye);
  camera.up.set(...job.up);
  camera.lookAt(...job.target);
  scene.add(camera);
  const gaussians = ['spark', 'khr'].includes(job.viewer);
  for (const pause of gaussians ? [0, 3000, 1000] : [0]) {
    await rest(pause); // gaussians are sorted beside, for a frame after
    gl.render(scene, camera);
    window.picture = gl.domElement.toDataURL('image/png'); // waits until it is drawn
  }
  window.found = { revision: THREE.REVISION, ...found(opened) };
} catch (error) {
  window.found = { error: String(error.stack ?? error) };
}
</script>`;

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
  const [, kind, number, name] = path.split('/');
  if (kind === 'job') return response.setHeader('content-type', 'text/html').end(page(jobs[number]));
  const wanted = kind === 'file' ? join(dirname(jobs[number].file), name) : join(modules, path);
  if (!existsSync(wanted)) return response.writeHead(404).end();
  response.setHeader('content-type', TYPES[extname(wanted)] ?? 'application/octet-stream');
  createReadStream(wanted).pipe(response);
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const chromium = await browser();
try {
  for (const [number, job] of jobs.entries()) {
    Object.assign(job, { number, base: job.file.split('/').at(-1) });
    const shown = await chromium.newPage({ viewport: { width: job.width, height: job.height } });
    const said = [];
    shown.on('console', (message) => {
      if (['error', 'warning'].includes(message.type()) && !/GPU stall|GL Driver/.test(message.text()))
        said.push(message.text().slice(0, 200));
    });
    await shown.goto(`http://127.0.0.1:${server.address().port}/job/${number}`);
    await shown.waitForFunction(() => window.found, null, { timeout: 180_000 });
    const picture = await shown.evaluate(() => window.picture ?? '');
    if (picture) writeFileSync(job.picture, Buffer.from(picture.split(',')[1], 'base64'));
    tell({ name: job.name, ...(await shown.evaluate(() => window.found)), said });
    await shown.close();
  }
} finally {
  await chromium.close();
  server.close();
}
