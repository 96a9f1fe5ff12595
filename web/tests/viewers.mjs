// Renders files of many formats in three.js, Spark and three's gaussian loader: `node viewers.mjs JOBS.json`.
//
// A job is { name, file, viewer, eye, target, up, fov, reach, width, height, image }; the camera is in the unit of the
// file. Prints the contents and size of each file as a line of JSON. The page has no code of the studio.

import { createReadStream, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

import { launchBrowser, report } from './browser.mjs';

const jobs = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const modules = fileURLToPath(new URL('../node_modules/', import.meta.url));
const TYPES = { '.js': 'text/javascript', '.wasm': 'application/wasm', '.png': 'image/png' };
// three's gaussian loader needs the WebGPU renderer, which has its own classes.
const threeBuild = (job) => `/three/build/three.${job.viewer === 'khr' ? 'webgpu' : 'module'}.js`;

const viewerPage = (job) => `<!doctype html><style>body{margin:0}</style>
<script type="importmap">{"imports":{"three":"${threeBuild(job)}","three/webgpu":"/three/build/three.webgpu.js",
"three/tsl":"/three/build/three.tsl.js","three/addons/":"/three/examples/jsm/",
"@sparkjsdev/spark":"/@sparkjsdev/spark/dist/spark.module.js"}}</script>
<script type="module">
import * as THREE from 'three';
const job = ${JSON.stringify(job)};
const addon = async (path, name) => (await import('three/addons/' + path))[name];
const loader = async (name) => new (await addon('loaders/' + name + '.js', name))();
const url = '/file/' + job.number + '/' + encodeURIComponent(job.base);
const pointCloud = (geometry) =>
  new THREE.Points(geometry, new THREE.PointsMaterial({ vertexColors: geometry.hasAttribute('color') }));
const shadedMesh = (geometry, map) => {
  if (!geometry.hasAttribute('normal')) geometry.computeVertexNormals();
  const vertexColors = !map && geometry.hasAttribute('color');
  return new THREE.Mesh(geometry, new THREE.MeshLambertMaterial({ map, vertexColors }));
};

const directionalLight = () => {
  const light = new THREE.DirectionalLight(0xffffff, 2);
  light.position.set(...job.up);
  return light;
};

const OPENERS = {
  async gltf() {
    const draco = await addon('loaders/DRACOLoader.js', 'DRACOLoader');
    const meshopt = await addon('libs/meshopt_decoder.module.js', 'MeshoptDecoder');
    const gltf = (await loader('GLTFLoader')).setMeshoptDecoder(meshopt);
    gltf.setDRACOLoader(new draco().setDecoderPath('/three/examples/jsm/libs/draco/gltf/'));
    return (await gltf.loadAsync(url)).scene;
  },
  async khr() {
    const gltf = await loader('GLTFLoader');
    const plugin = 'GLTFGaussianSplatLoaderExtension';
    const Extension = await addon('loaders/' + plugin + '.js', plugin);
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
    return shadedMesh(await (await loader('STLLoader')).loadAsync(url));
  },
  async fbx() {
    return (await loader('FBXLoader')).loadAsync(url);
  },
  async usd() {
    return (await loader('USDLoader')).loadAsync(url);
  },
  async ply() {
    const geometry = await (await loader('PLYLoader')).loadAsync(url);
    if (!geometry.index) return pointCloud(geometry);
    if (!job.texture) return shadedMesh(geometry);
    const map = await new THREE.TextureLoader().loadAsync('/file/' + job.number + '/' + job.texture);
    map.colorSpace = THREE.SRGBColorSpace;
    return shadedMesh(geometry, map);
  },
  async xyz() {
    return pointCloud(await (await loader('XYZLoader')).loadAsync(url));
  },
};

function countContents(model) {
  let [triangles, points, gaussians] = [0, 0, model.packedSplats?.numSplats ?? 0];
  model.traverse((object) => {
    const positions = object.geometry?.attributes.position;
    if (object.isGaussianSplat || object.constructor.name === 'GaussianSplat') gaussians += object.splatGeometry?.attributes.position.count ?? 0;
    else if (object.isPoints) points += positions.count;
    else if (object.isMesh && positions && !object.packedSplats) triangles += (object.geometry.index ?? positions).count / 3;
  });
  const box = triangles + points ? new THREE.Box3().setFromObject(model, true) : null;
  return { triangles, points, gaussians, box: box && [box.min.toArray(), box.max.toArray()] };
}

async function createRenderer() {
  const gl = job.viewer === 'khr'
    ? new THREE.WebGPURenderer({ forceWebGL: true, antialias: true })
    : new THREE.WebGLRenderer({ antialias: job.viewer !== 'spark', preserveDrawingBuffer: true });
  await gl.init?.();
  // three treats the display colours of gaussians as linear light; without a conversion they are right.
  if (job.viewer === 'khr') gl.outputColorSpace = THREE.LinearSRGBColorSpace;
  gl.setSize(job.width, job.height);
  gl.setClearColor(0xffffff);
  document.body.append(gl.domElement);
  return gl;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
try {
  const gl = await createRenderer();
  const model = await OPENERS[job.viewer]();
  const scene = new THREE.Scene();
  // White ambient light shows a matte surface in its texture colours; an untextured one needs a directional light.
  scene.add(model, new THREE.AmbientLight(0xffffff, job.viewer === 'stl' ? 1 : Math.PI));
  if (job.viewer === 'stl') scene.add(directionalLight());
  if (job.viewer === 'spark') {
    const { SparkRenderer } = await import('@sparkjsdev/spark');
    scene.add(new SparkRenderer({ renderer: gl }));
  }
  const maps = [];
  model.traverse((object) => {
    for (const material of [object.material ?? []].flat()) maps.push(material.map);
    if (object.isPoints) Object.assign(object.material, { size: 3, sizeAttenuation: false });
  });
  for (let waited = 0; waited < 10_000 && maps.some((map) => map && !map.image?.width); waited += 50) await sleep(50);
  const camera = new THREE.PerspectiveCamera(job.fov, job.width / job.height, job.reach / 200, job.reach * 20);
  camera.position.set(...job.eye);
  camera.up.set(...job.up);
  camera.lookAt(...job.target);
  scene.add(camera);
  const gaussians = ['spark', 'khr'].includes(job.viewer);
  for (const pause of gaussians ? [0, 3000, 1000] : [0]) {
    await sleep(pause); // gaussians are sorted in a worker, for a later frame
    gl.render(scene, camera);
    window.image = gl.domElement.toDataURL('image/png'); // waits until the frame is drawn
  }
  window.report = { revision: THREE.REVISION, ...countContents(model) };
} catch (error) {
  window.report = { error: String(error.stack ?? error) };
}
</script>`;

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
  const [, kind, number, name] = path.split('/');
  if (kind === 'job') return response.setHeader('content-type', 'text/html').end(viewerPage(jobs[number]));
  const requestedFile = kind === 'file' ? join(dirname(jobs[number].file), name) : join(modules, path);
  if (!existsSync(requestedFile)) return response.writeHead(404).end();
  response.setHeader('content-type', TYPES[extname(requestedFile)] ?? 'application/octet-stream');
  createReadStream(requestedFile).pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const chromium = await launchBrowser();
try {
  for (const [number, job] of jobs.entries()) {
    Object.assign(job, { number, base: job.file.split('/').at(-1) });
    const page = await chromium.newPage({ viewport: { width: job.width, height: job.height } });
    const log = [];
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type()) && !/GPU stall|GL Driver/.test(message.text()))
        log.push(message.text().slice(0, 200));
    });
    await page.goto(`http://127.0.0.1:${server.address().port}/job/${number}`);
    await page.waitForFunction(() => window.report, null, { timeout: 180_000 });
    const image = await page.evaluate(() => window.image ?? '');
    if (image) writeFileSync(job.image, Buffer.from(image.split(',')[1], 'base64'));
    report({ name: job.name, ...(await page.evaluate(() => window.report)), log });
    await page.close();
  }
} finally {
  await chromium.close();
  server.close();
}
