// For tests: what the server says of its methods, in small.

import { setting, SETTINGS } from '../../forms/settingFixtures';

export const METHODS = [
  { name: 'splat', default: true, settings: SETTINGS },
  { name: 'ngp', default: false, settings: [setting('samples', 32_768, { type: 'integer', minimum: 256 })] },
];
