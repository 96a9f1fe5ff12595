// Takes the screenshots of docs/studio.md from a project of the sample scene: `node guideScreenshots.mjs LINK PROJECT OUT`

import { join } from 'node:path';

import { launchBrowser } from './browser.mjs';

const [link, project, out] = process.argv.slice(2);
const LOAD_TIMEOUT_MS = 300_000;
const chromium = await launchBrowser();
const page = await chromium.newPage({ viewport: { width: 1280, height: 800 } });
const takeScreenshot = (name) =>
  page.screenshot({ path: join(out, `studio-${name}.jpg`), type: 'jpeg', quality: 82 });
const openTab = async (name) => {
  await page.goto(new URL(`/projects/${project}/${name}`, link).href);
  await page.waitForLoadState('networkidle');
};

await page.goto(link);
await page.waitForLoadState('networkidle');
await takeScreenshot('projects');
await openTab('photos');
await page.locator('canvas').waitFor();
await page.waitForTimeout(3000);
await takeScreenshot('photos');
await openTab('train');
await page.waitForTimeout(2000);
await takeScreenshot('train');
await openTab('evaluate');
await page.waitForTimeout(1000);
await takeScreenshot('evaluate');
await openTab('export');
await takeScreenshot('export');
await openTab('view');
await page.waitForFunction(() => window.__viewer?.loaded, null, { timeout: LOAD_TIMEOUT_MS });
await page.waitForTimeout(15_000);
await takeScreenshot('view');
await chromium.close();
