// Loads a tileset with the viewer 3DTilesRendererJS at several error targets in pixels; reports the points it shows.
//   node tiles.mjs TILESET ERROR...     one JSON object a line
import { readFile } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Box3, PerspectiveCamera } from 'three';
import { MeshoptDecoder } from 'three/examples/jsm/libs/meshopt_decoder.module.js';
import { GLTFLoader } from 'three/examples/jsm/loaders/GLTFLoader.js';

const [file, ...errors] = process.argv.slice(2);
const LOAD_TIMEOUT_MS = 30_000;

// Browser globals that the viewer expects.
Object.assign(globalThis, {
  self: globalThis,
  window: { location: { href: pathToFileURL(file).href } },
  requestAnimationFrame: (work) => setTimeout(work, 1),
  cancelAnimationFrame: clearTimeout,
});
console.warn = console.error;
const { TilesRenderer } = await import('3d-tiles-renderer/three');

async function loadTileset(error) {
  const tiles = new TilesRenderer(pathToFileURL(file).href);
  const failures = [];
  tiles.addEventListener('load-error', (event) => failures.push(String(event.error)));
  tiles.registerPlugin({ fetchData: async (url) => new Response(await readFile(fileURLToPath(url))) });
  const loader = new GLTFLoader(tiles.manager).setMeshoptDecoder(MeshoptDecoder);
  tiles.manager.addHandler(/\.glb$/, loader);
  tiles.errorTarget = error;

  const camera = new PerspectiveCamera(60, 1, 0.1, 1000);
  camera.position.set(0, -100, 0);
  camera.up.set(0, 0, 1);
  camera.lookAt(0, 0, 0);
  camera.updateMatrixWorld();
  tiles.setCamera(camera);
  tiles.setResolution(camera, 500, 500);

  const end = Date.now() + LOAD_TIMEOUT_MS;
  for (let calm = 0; calm < 10 && Date.now() < end;) {
    tiles.update();
    const { queued, downloading, parsing } = tiles.stats;
    calm = tiles.root && queued + downloading + parsing === 0 ? calm + 1 : 0;
    await new Promise((next) => setTimeout(next, 2));
  }
  const box = new Box3();
  let points = 0;
  let parts = 0;
  tiles.group.updateMatrixWorld(true);
  tiles.group.traverse((part) => {
    if (!part.isPoints) return;
    parts += 1;
    points += part.geometry.attributes.position.count;
    box.expandByObject(part, true);
  });
  return { failed: failures, parts, points, low: box.min.toArray(), high: box.max.toArray() };
}

for (const error of errors) console.log(JSON.stringify(await loadTileset(Number(error))));
process.exit(0);
