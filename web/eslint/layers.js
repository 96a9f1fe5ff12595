// The import rules of src/: which folder may import which, and no import cycles. `import type` and import() count too.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative, sep } from 'node:path';

const SOURCE = join(import.meta.dirname, '..', 'src');
const SHARED = ['lib', 'geometry', 'design', 'api', 'state', 'forms', 'jobs', 'runs'];

/** Folders that each folder may import besides itself. A page is a folder of its own, `pages/view` for example. */
export const MAY_IMPORT = {
  lib: [],
  geometry: ['lib'],
  design: ['lib'],
  api: ['lib', 'geometry'],
  state: ['lib', 'geometry', 'api'],
  forms: ['lib', 'design', 'api'],
  jobs: ['lib', 'design', 'api', 'state'],
  runs: ['lib', 'geometry', 'design', 'api', 'state', 'forms', 'jobs'],
  pages: SHARED,
  app: [...SHARED, 'pages'],
  '': ['app', 'design', 'lib', 'state'], // main.tsx
};

/** Folder of a module path: 'pages/view/probe' -> 'pages/view', 'lib/id' -> 'lib', 'main' -> ''. */
const folderOf = (module) =>
  module
    .split('/')
    .slice(0, -1)
    .slice(0, module.startsWith('pages/') ? 2 : 1)
    .join('/');

/** The rule that an import breaks, or null. Both are module paths relative to src. */
export function violation(importer, imported) {
  const [from, to] = [folderOf(importer), folderOf(imported)];
  if (from === to) return null;
  const allowed = MAY_IMPORT[from.split('/')[0]];
  if (!allowed) return `${from} is not in MAY_IMPORT`;
  if (allowed.includes(to.split('/')[0])) return null;
  return `${from || 'main'} may not import ${to}`;
}

/** The cycle through `start` as a list of modules, or null. `imports`: module -> imported modules. */
export function cycleThrough(start, imports) {
  const visited = new Set();
  const search = (module, path) => {
    for (const next of imports.get(module) ?? []) {
      if (next === start) return [...path, start];
      if (visited.has(next)) continue;
      visited.add(next);
      const cycle = search(next, [...path, next]);
      if (cycle) return cycle;
    }
    return null;
  };
  return search(start, [start]);
}

const moduleOf = (path) =>
  path
    .split(sep)
    .join('/')
    .replace(/\.tsx?$/, '');
const resolved = (importer, specifier) =>
  specifier.startsWith('.')
    ? normalize(join(dirname(importer), specifier))
        .split(sep)
        .join('/')
    : null;

let graph;

/** Imports of all modules in src, read once for each run of ESLint. */
function importGraph() {
  if (graph) return graph;
  graph = new Map();
  const files = existsSync(SOURCE) ? readdirSync(SOURCE, { recursive: true }) : [];
  for (const file of files.map(String).filter((name) => /(?<!\.d)\.tsx?$/.test(name))) {
    const module = moduleOf(file);
    const text = readFileSync(join(SOURCE, file), 'utf8');
    const specifiers = [...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'(\.[^']+)'/g)].map(
      (match) => match[1],
    );
    graph.set(
      module,
      specifiers.map((specifier) => resolved(module, specifier)),
    );
  }
  return graph;
}

export const layers = {
  meta: { type: 'problem', schema: [] },
  create(context) {
    const path = relative(SOURCE, context.filename);
    if (path.startsWith('..')) return {};
    const importer = moduleOf(path);
    const check = ({ source }) => {
      const imported = typeof source?.value === 'string' ? resolved(importer, source.value) : null;
      const message = imported && violation(importer, imported);
      if (message) context.report({ node: source, message });
    };
    return {
      ImportDeclaration: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
      ImportExpression: check,
      Program(node) {
        const cycle = cycleThrough(importer, importGraph());
        if (cycle) context.report({ node, message: `Import cycle: ${cycle.join(' -> ')}` });
      },
    };
  },
};
