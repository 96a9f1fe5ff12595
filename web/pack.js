// Compresses the built assets once, so that the server never has to.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const folder = '../lumigraph/server/static/assets';
for (const name of readdirSync(folder)) {
  if (/\.(js|css|wasm)$/.test(name)) {
    writeFileSync(join(folder, `${name}.gz`), gzipSync(readFileSync(join(folder, name)), { level: 9 }));
  }
}
