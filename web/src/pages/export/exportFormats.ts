// What a run can be made into: what somebody wants, and the forms of file that hold it, by who reads them.

import type { Schema } from '../../api/client';

export type Offer = Schema['FormatOffer'];
export type KindOffer = Schema['KindOffer'];
export type Kind = KindOffer['kind'];
export type Want = 'splats' | 'mesh' | 'points' | 'voxels' | 'film';
export type Purpose = NonNullable<Schema['ExportJob']['preset']>;

export const WANTS: Record<Want, [name: string, words: string]> = {
  splats: ['Splats', 'The scene as it was learned, with all its light. For viewers that know gaussians.'],
  mesh: ['Mesh with texture', 'A surface of triangles, for 3D programs, games and printers.'],
  points: ['Points', 'A cloud of coloured points, for programs that measure and map.'],
  voxels: ['Voxels', 'A grid of distances to the surface, with colours, for programs that compute.'],
  film: ['Film', 'An MP4 of a camera that goes through the scene. Plays everywhere.'],
};

const KINDS: Record<Want, Kind[]> = {
  splats: ['splats'],
  mesh: ['mesh'],
  points: ['points', 'centres'],
  voxels: ['voxels'],
  film: [],
};
const OF_GAUSSIANS: Kind[] = ['splats', 'centres']; // what only methods with gaussians can give

/** A form of file for what is wanted. */
export interface Form {
  form: string;
  name: string;
  readers: string;
  common: boolean; // shown at once; the others wait behind a click
  kinds: KindOffer[]; // of what is wanted, the usual one first
  purpose?: Purpose; // what it is for, where it is for that alone
}

interface Known {
  name: string;
  readers: string;
  common?: true;
  purpose?: Purpose;
}

const USD: Record<string, Known> = {
  usdc: { name: 'USDC', readers: 'As USDZ, binary, for pipelines of OpenUSD.' },
  usda: { name: 'USDA', readers: 'As USDZ, as text that people can read.' },
  usd: { name: 'USD', readers: 'As USDC, under the name that some programs ask for.' },
};

/** By want and form, the recommended one first. */
const READERS: Record<Exclude<Want, 'film'>, Record<string, Known>> = {
  splats: {
    ply: {
      name: 'PLY',
      readers: 'SuperSplat, and plug-ins of Unity, Unreal and Blender. Nothing is lost.',
      common: true,
    },
    spz: {
      name: 'SPZ',
      readers: 'Viewers on the web and on phones. A tenth of the size, hardly a difference to see.',
      common: true,
    },
    sog: {
      name: 'SOG',
      readers: 'PlayCanvas and SuperSplat, for pages on the web. A fifteenth of the size.',
      common: true,
    },
    'compressed.ply': {
      name: 'Compressed PLY',
      readers: 'PlayCanvas and SuperSplat. A quarter of the size.',
    },
    splat: { name: '.splat', readers: 'Older viewers on the web. Colours no longer change with the view.' },
    glb: { name: 'GLB', readers: 'Programs that know KHR_gaussian_splatting, which is new.' },
    gltf: { name: 'glTF', readers: 'As GLB, in several files. Comes as a zip.' },
    usdz: { name: 'USDZ', readers: 'OpenUSD 26.03 and newer, which knows gaussians.' },
    ...USD,
  },
  mesh: {
    glb: {
      name: 'GLB',
      readers: 'Blender, Unity, Godot, Windows and any page on the web. All in one file.',
      common: true,
    },
    usdz: {
      name: 'USDZ',
      readers: 'iPhone, iPad and Mac, where a tap opens it; Blender and Omniverse.',
      common: true,
    },
    fbx: { name: 'FBX', readers: 'Unreal, Unity, Maya and 3ds Max.', common: true },
    obj: {
      name: 'OBJ',
      readers: 'Almost any 3D program. Comes as a zip, its texture beside it.',
      common: true,
    },
    stl: {
      name: 'STL',
      readers: 'Programs for 3D printers. A closed surface without colours.',
      common: true,
      purpose: 'print',
    },
    ply: { name: 'PLY', readers: 'MeshLab, CloudCompare and Blender.', common: true },
    gltf: { name: 'glTF', readers: 'As GLB, in several files. Comes as a zip.' },
    ...USD,
  },
  points: {
    ply: { name: 'PLY', readers: 'CloudCompare, MeshLab, Blender and most others.', common: true },
    las: { name: 'LAS', readers: 'QGIS and programs for maps, surveying and laser scans.', common: true },
    xyz: {
      name: 'XYZ',
      readers: 'Text, a line for each point. Whatever reads tables reads it.',
      common: true,
    },
    glb: { name: 'GLB', readers: 'Pages on the web, and programs that know glTF.' },
    gltf: { name: 'glTF', readers: 'As GLB, in several files. Comes as a zip.' },
    usdz: { name: 'USDZ', readers: 'Omniverse, Blender and Houdini.' },
    'tileset.json': {
      name: '3D Tiles',
      readers: 'CesiumJS and other maps in 3D, which load it part by part. Comes as a zip.',
    },
    ...USD,
  },
  voxels: {
    npz: { name: 'NPZ', readers: 'NumPy, and whatever begins from arrays.', common: true },
  },
};

export const PURPOSES: Record<Purpose, [name: string, words: string]> = {
  web: ['Web', 'Small, so that it opens fast.'],
  game: ['Game', 'Few triangles, and nothing that floats about.'],
  print: ['Print', 'One closed surface, so that it can be printed.'],
  archive: ['Archive', 'All that can be had, however large.'],
};
const isPurpose = (name: string): name is Purpose => name in PURPOSES;

/** What can be wanted of a run. `flat`: its method has no gaussians. */
export const wantsOf = (offers: Offer[], flat: boolean): Want[] => [
  ...(['splats', 'mesh', 'points', 'voxels'] as const).filter((want) => formsOf(want, offers, flat).length),
  'film',
];

/** The forms for what is wanted, the recommended one first; those that nobody described last. */
export function formsOf(want: Want, offers: Offer[], flat: boolean): Form[] {
  if (want === 'film') return [];
  const known = Object.keys(READERS[want]);
  const rank = (form: Form) => (known.includes(form.form) ? known.indexOf(form.form) : known.length);
  return offers
    .map(({ form, name, kinds }) => ({
      form,
      name,
      readers: `A file that ends with .${form}.`,
      common: false,
      ...READERS[want][form],
      kinds: KINDS[want].flatMap((kind) =>
        flat && OF_GAUSSIANS.includes(kind) ? [] : kinds.filter((one) => one.kind === kind),
      ),
    }))
    .filter((one) => one.kinds.length)
    .sort((a, b) => rank(a) - rank(b));
}

export const purposesOf = (kind: KindOffer): Purpose[] => Object.keys(kind.presets).filter(isPurpose);
