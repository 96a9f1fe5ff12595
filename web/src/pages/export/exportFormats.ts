// What a run can be exported to, and the file formats with the programs that read them.

import type { Schema } from '../../api/client';

export type FormatOffer = Schema['FormatOffer'];
export type KindOffer = Schema['KindOffer'];
export type Kind = KindOffer['kind'];
export type ExportTarget = 'splats' | 'mesh' | 'points' | 'voxels' | 'video';
export type Purpose = NonNullable<Schema['ExportJob']['preset']>;

export const TARGETS: Record<ExportTarget, [name: string, description: string]> = {
  splats: ['Splats', 'The trained gaussians, for splat viewers.'],
  mesh: ['Mesh with texture', 'A triangle mesh, for 3D programs, games and printers.'],
  points: ['Points', 'A coloured point cloud, for surveying and mapping.'],
  voxels: ['Voxels', 'A signed distance grid with colours, for numerical programs.'],
  video: ['Video', 'An MP4 along a camera path.'],
};

const KINDS: Record<ExportTarget, Kind[]> = {
  splats: ['splats'],
  mesh: ['mesh'],
  points: ['points', 'centres'],
  voxels: ['voxels'],
  video: [],
};
const GAUSSIAN_KINDS: Kind[] = ['splats', 'centres']; // need a method with gaussians

/** A file format of an export target. */
export interface Form {
  form: string;
  name: string;
  readers: string;
  common: boolean; // shown at once; the others are behind a click
  kinds: KindOffer[]; // the default first
  purpose?: Purpose; // set if the format has one purpose only
}

interface FormatInfo {
  name: string;
  readers: string;
  common?: true;
  purpose?: Purpose;
}

const USD: Record<string, FormatInfo> = {
  usdc: { name: 'USDC', readers: 'OpenUSD pipelines. Binary.' },
  usda: { name: 'USDA', readers: 'OpenUSD pipelines. Text.' },
  usd: { name: 'USD', readers: 'Same as USDC, with the suffix .usd.' },
};

/** By target and format, the recommended one first. */
const FORMAT_INFO: Record<Exclude<ExportTarget, 'video'>, Record<string, FormatInfo>> = {
  splats: {
    ply: {
      name: 'PLY',
      readers: 'SuperSplat; plugins of Unity, Unreal and Blender. Lossless.',
      common: true,
    },
    spz: {
      name: 'SPZ',
      readers: 'Web and phone viewers. A tenth of the size, almost lossless.',
      common: true,
    },
    sog: {
      name: 'SOG',
      readers: 'PlayCanvas and SuperSplat, for the web. A fifteenth of the size.',
      common: true,
    },
    'compressed.ply': {
      name: 'Compressed PLY',
      readers: 'PlayCanvas and SuperSplat. A quarter of the size.',
    },
    splat: { name: '.splat', readers: 'Older web viewers. No view-dependent colour.' },
    glb: { name: 'GLB', readers: 'Programs with the new KHR_gaussian_splatting extension.' },
    gltf: { name: 'glTF', readers: 'Same as GLB, in several files. Zipped.' },
    usdz: { name: 'USDZ', readers: 'OpenUSD 26.03 and newer.' },
    ...USD,
  },
  mesh: {
    glb: {
      name: 'GLB',
      readers: 'Blender, Unity, Godot, Windows and the web. One file.',
      common: true,
    },
    usdz: {
      name: 'USDZ',
      readers: 'iPhone, iPad, Mac, Blender and Omniverse.',
      common: true,
    },
    fbx: { name: 'FBX', readers: 'Unreal, Unity, Maya and 3ds Max.', common: true },
    obj: {
      name: 'OBJ',
      readers: 'Almost any 3D program. Zipped with its texture.',
      common: true,
    },
    stl: {
      name: 'STL',
      readers: '3D printing. A closed surface without colours.',
      common: true,
      purpose: 'print',
    },
    ply: { name: 'PLY', readers: 'MeshLab, CloudCompare and Blender.', common: true },
    gltf: { name: 'glTF', readers: 'Same as GLB, in several files. Zipped.' },
    ...USD,
  },
  points: {
    ply: { name: 'PLY', readers: 'CloudCompare, MeshLab, Blender and most others.', common: true },
    las: { name: 'LAS', readers: 'QGIS, surveying and laser scanning programs.', common: true },
    xyz: {
      name: 'XYZ',
      readers: 'Text with one line for each point.',
      common: true,
    },
    glb: { name: 'GLB', readers: 'The web, and glTF programs.' },
    gltf: { name: 'glTF', readers: 'Same as GLB, in several files. Zipped.' },
    usdz: { name: 'USDZ', readers: 'Omniverse, Blender and Houdini.' },
    'tileset.json': {
      name: '3D Tiles',
      readers: 'CesiumJS and other 3D maps. Loads in parts. Zipped.',
    },
    ...USD,
  },
  voxels: {
    npz: { name: 'NPZ', readers: 'NumPy arrays.', common: true },
  },
};

export const PURPOSES: Record<Purpose, [name: string, description: string]> = {
  web: ['Web', 'Small, opens fast.'],
  game: ['Game', 'Few triangles, no floaters.'],
  print: ['Print', 'One watertight surface.'],
  archive: ['Archive', 'Full detail, large.'],
};
const isPurpose = (name: string): name is Purpose => name in PURPOSES;

/** The export targets of a run. `withoutSplats`: the method has no gaussians. */
export const targetsFor = (offers: FormatOffer[], withoutSplats: boolean): ExportTarget[] => [
  ...(['splats', 'mesh', 'points', 'voxels'] as const).filter(
    (target) => formatsFor(target, offers, withoutSplats).length,
  ),
  'video',
];

/** The formats of a target, the recommended one first, unknown ones last. */
export function formatsFor(target: ExportTarget, offers: FormatOffer[], withoutSplats: boolean): Form[] {
  if (target === 'video') return [];
  const order = Object.keys(FORMAT_INFO[target]);
  const rank = (form: Form) => (order.includes(form.form) ? order.indexOf(form.form) : order.length);
  return offers
    .map(({ form, name, kinds }) => ({
      form,
      name,
      readers: `Files with the suffix .${form}.`,
      common: false,
      ...FORMAT_INFO[target][form],
      kinds: KINDS[target].flatMap((kind) =>
        withoutSplats && GAUSSIAN_KINDS.includes(kind) ? [] : kinds.filter((offer) => offer.kind === kind),
      ),
    }))
    .filter((format) => format.kinds.length)
    .sort((a, b) => rank(a) - rank(b));
}

export const purposesFor = (kind: KindOffer): Purpose[] => Object.keys(kind.presets).filter(isPurpose);
