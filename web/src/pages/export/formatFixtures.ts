// For tests: a few formats as the server lists them.

import { setting } from '../../forms/settingFixtures';
import type { KindOffer, FormatOffer } from './exportFormats';

const FACES = setting('faces', 30_000, { type: 'integer', minimum: 0 });
const CLOSED = setting('watertight', false, { type: 'boolean' });
const PACKED = setting('compression', 'none', { enum: ['none', 'draco'] });

const kind = (name: KindOffer['kind'], more: Partial<KindOffer> = {}): KindOffer => ({
  kind: name,
  settings: [],
  presets: {},
  ...more,
});

const SURFACE = {
  settings: [FACES, CLOSED],
  presets: { game: { faces: 15_000 }, print: { faces: 500_000, watertight: true } },
};

/** In the server's order, which is not the order of the cards. */
export const FORMATS: FormatOffer[] = [
  {
    form: 'ply',
    name: 'PLY',
    kinds: [kind('splats'), kind('mesh', SURFACE), kind('points'), kind('centres')],
  },
  { form: 'compressed.ply', name: 'compressed PLY', kinds: [kind('splats')] },
  { form: 'stl', name: 'STL', kinds: [kind('mesh', SURFACE)] },
  {
    form: 'glb',
    name: 'glTF',
    kinds: [
      kind('mesh', { settings: [...SURFACE.settings, PACKED], presets: SURFACE.presets }),
      kind('splats'),
      kind('centres'),
    ],
  },
  { form: 'xyz', name: 'XYZ text', kinds: [kind('centres')] },
  { form: 'new', name: 'Plugin format', kinds: [kind('mesh')] },
];
