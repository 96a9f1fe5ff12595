// The pictures of the guide, of a project of the sample scene: `node pictures.mjs LINK PROJECT OUT`

import { join } from 'node:path';

import { browser } from './browser.mjs';

const [link, project, out] = process.argv.slice(2);
const LONG = 300_000;
const chromium = await browser();
const page = await chromium.newPage({ viewport: { width: 1280, height: 800 } });
const shot = (name) => page.screenshot({ path: join(out, `studio-${name}.jpg`), type: 'jpeg', quality: 82 });
const room = async (name) => {
  await page.goto(new URL(`/projects/${project}/${name}`, link).href);
  await page.waitForLoadState('networkidle');
};

await page.goto(link);
await page.waitForLoadState('networkidle');
await shot('projects');
await room('photos');
await page.locator('canvas').waitFor();
await page.waitForTimeout(3000);
await shot('photos');
await room('train');
await page.waitForTimeout(2000);
await shot('train');
await room('evaluate');
await page.waitForTimeout(1000);
await shot('evaluate');
await room('export');
await shot('export');
await room('view');
await page.waitForFunction(() => window.__viewer?.loaded, null, { timeout: LONG });
await page.waitForTimeout(15_000);
await shot('view');
await chromium.close();
