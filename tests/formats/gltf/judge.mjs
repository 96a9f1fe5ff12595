// What others see in glTF files: the findings of the Khronos validator, and the contents as glTF-Transform decodes them.
//   node judge.mjs FILE...     one JSON object a line
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { NodeIO } from '@gltf-transform/core';
import { ALL_EXTENSIONS } from '@gltf-transform/extensions';
import draco from 'draco3dgltf';
import validator from 'gltf-validator';
import { MeshoptDecoder } from 'meshoptimizer';

const io = new NodeIO().registerExtensions(ALL_EXTENSIONS).registerDependencies({
  'draco3d.decoder': await draco.createDecoderModule(),
  'meshopt.decoder': MeshoptDecoder,
});

async function findings(file) {
  const beside = (uri) =>
    readFile(join(dirname(file), decodeURIComponent(uri))).then((data) => new Uint8Array(data));
  const options = { externalResourceFunction: beside, maxIssues: 0 };
  const { issues } = await validator.validateBytes(new Uint8Array(readFileSync(file)), options);
  return issues.messages.map(({ code, severity, pointer, message }) => ({
    code,
    severity,
    pointer,
    message,
  }));
}

function primitive(node, part) {
  const position = part.getAttribute('POSITION');
  const [low, high] = [position.getMinNormalized([]), position.getMaxNormalized([])];
  const scale = node.getWorldScale();
  const move = node.getWorldTranslation();
  const placed = (corner) => corner.map((x, axis) => x * scale[axis] + move[axis]);
  const all = (name) => {
    const accessor = part.getAttribute(name);
    return (
      accessor &&
      Array.from({ length: Math.min(accessor.getCount(), 1000) }, (_, i) => accessor.getElement(i, []))
    );
  };
  return {
    mode: part.getMode(),
    attributes: part.listSemantics(),
    vertices: position.getCount(),
    indices: part.getIndices()?.getCount() ?? null,
    low: placed(low),
    high: placed(high),
    positions: all('POSITION').map(placed),
    normals: all('NORMAL'),
    colours: all('COLOR_0'),
    unlit: part.getMaterial()?.getExtension('KHR_materials_unlit') != null,
    texture: part.getMaterial()?.getBaseColorTexture()?.getMimeType() ?? null,
  };
}

for (const file of process.argv.slice(2)) {
  const document = await io.read(file);
  const parts = [];
  for (const node of document.getRoot().listNodes())
    for (const part of node.getMesh()?.listPrimitives() ?? []) parts.push(primitive(node, part));
  console.log(JSON.stringify({ findings: await findings(file), parts }));
}
