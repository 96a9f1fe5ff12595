// For tests: a few methods as the server lists them.

import { setting, SETTINGS } from '../../forms/settingFixtures';

export const METHODS = [
  { name: 'splat', default: true, settings: SETTINGS },
  { name: 'ngp', default: false, settings: [setting('samples', 32_768, { type: 'integer', minimum: 256 })] },
];
