// Checks glTF files: findings of the Khronos validator, and contents decoded by glTF-Transform.
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

async function validate(file) {
  const readCompanion = (uri) =>
    readFile(join(dirname(file), decodeURIComponent(uri))).then((data) => new Uint8Array(data));
  const options = { externalResourceFunction: readCompanion, maxIssues: 0 };
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
  const toWorld = (corner) => corner.map((x, axis) => x * scale[axis] + move[axis]);
  const elements = (name) => {
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
    low: toWorld(low),
    high: toWorld(high),
    positions: elements('POSITION').map(toWorld),
    normals: elements('NORMAL'),
    colours: elements('COLOR_0'),
    unlit: part.getMaterial()?.getExtension('KHR_materials_unlit') != null,
    texture: part.getMaterial()?.getBaseColorTexture()?.getMimeType() ?? null,
  };
}

for (const file of process.argv.slice(2)) {
  const document = await io.read(file);
  const parts = [];
  for (const node of document.getRoot().listNodes())
    for (const part of node.getMesh()?.listPrimitives() ?? []) parts.push(primitive(node, part));
  console.log(JSON.stringify({ findings: await validate(file), parts }));
}
