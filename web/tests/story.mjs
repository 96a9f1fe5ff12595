// From photos to an exported file, by clicks alone. `node story.mjs LINK PHOTOS OUT [WIDTHxHEIGHT]`

import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { closeInput, collectErrors, launchBrowser, report, reportAndWait } from './browser.mjs';

const [link, photos, out, size = '480x320'] = process.argv.slice(2);
const [width, height] = size.split('x').map(Number);
const STEP_TIMEOUT_MS = 180_000;
const GAUSSIAN_LIMIT = 6000; // fast enough for the software GPU

const chromium = await launchBrowser();
const context = await chromium.newContext({
  viewport: { width, height: height + 480 },
  acceptDownloads: true,
  reducedMotion: 'reduce',
});
const page = await context.newPage();
page.setDefaultTimeout(STEP_TIMEOUT_MS);
const errors = collectErrors(page, link);
// Keep the request of the page, except for the number of gaussians.
await page.route('**/scan', async (route) => {
  const request = route.request().postDataJSON();
  request.train.settings = { cap: GAUSSIAN_LIMIT };
  await route.continue({ postData: JSON.stringify(request) });
});

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core'), 'utf8');
const THEMES = ['light', 'dark'];

/** Takes a screenshot and collects accessibility violations in both themes. */
async function checkPage(name) {
  await page.screenshot({ path: join(out, `${name}.png`) });
  for (const colorScheme of THEMES) {
    await page.emulateMedia({ colorScheme });
    await page.waitForTimeout(150); // colour transition
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() =>
      window.axe.run(document, { resultTypes: ['violations'] }),
    );
    for (const violation of violations) {
      errors.push(
        `${name}, ${colorScheme}: ${violation.id}: ${violation.nodes.map((node) => node.html.slice(0, 160)).join(' ')}`,
      );
    }
  }
  await page.emulateMedia({ colorScheme: 'light' });
}

const openTab = (name) => page.getByRole('link', { name, exact: true }).click();
const activity = () => page.getByTestId('activity');

try {
  const start = Date.now();
  await page.goto(link);
  await page.getByRole('heading', { name: /Drop photos/ }).waitFor();
  report({ step: 'first paint', ms: Date.now() - start });

  const files = readdirSync(photos).map((name) => join(photos, name));
  await page.getByTestId('files').setInputFiles(files);
  await page.getByRole('button', { name: 'Reconstruct scene' }).waitFor({ timeout: STEP_TIMEOUT_MS });
  await checkPage('photos');
  await page.getByText('Quick', { exact: false }).click();
  await page.getByRole('button', { name: 'Reconstruct scene' }).click();
  await page.waitForURL(/\/train$/);
  const project = /projects\/(\w+)/.exec(page.url())[1];
  report({ step: 'scan submitted', project });

  await activity()
    .getByText(/^Training/)
    .waitFor({ timeout: STEP_TIMEOUT_MS });
  await page.getByText('Held-out views', { exact: false }).first().waitFor({ timeout: STEP_TIMEOUT_MS });
  await checkPage('training');
  await page.reload();
  await activity()
    .getByText(/^Training/)
    .waitFor({ timeout: STEP_TIMEOUT_MS });
  report({ step: 'reloaded during training' });

  await openTab('View');
  await page.waitForFunction(() => window.__viewer?.loaded && window.__viewer.splats > 100, null, {
    timeout: STEP_TIMEOUT_MS,
  });
  const first = await page.evaluate(() => window.__viewer.loaded);
  await checkPage('appearing');
  await reportAndWait({ step: 'shown during training', scene: first });

  // The worker was killed during the wait. Training resumes, and a newer state replaces the scene.
  await page.waitForFunction((before) => window.__viewer?.loaded !== before, first, {
    timeout: STEP_TIMEOUT_MS,
  });
  await page.waitForFunction(() => !document.querySelector('[data-testid=activity]'), null, {
    timeout: STEP_TIMEOUT_MS,
  });
  await page.waitForTimeout(1500);
  await page
    .locator('canvas')
    .first()
    .screenshot({ path: join(out, 'canvas.png') });
  await checkPage('view');
  await page.getByRole('button', { name: 'Copy link to this view' }).click();
  report({
    step: 'finished',
    scene: await page.evaluate(() => window.__viewer.loaded),
    view: new URL(page.url()).hash,
  });

  await openTab('Photos');
  await page.locator('canvas').first().waitFor();
  await page.waitForTimeout(1500);
  await checkPage('cameras');
  await page.getByRole('button', { name: 'IMG_0012.jpg' }).click();
  await page.getByRole('link', { name: 'View the scene from here' }).click();
  await page.waitForFunction(() => window.__viewer?.loaded, null, { timeout: STEP_TIMEOUT_MS });
  await page.waitForTimeout(1500);
  await page
    .locator('canvas')
    .first()
    .screenshot({ path: join(out, 'photo-camera.png') });

  await openTab('Evaluate');
  const slider = page.getByRole('slider', { name: /Line between/ });
  await slider.waitFor({ timeout: STEP_TIMEOUT_MS });
  await slider.press('ArrowLeft');
  await checkPage('evaluate');

  await openTab('Export');
  await page.getByRole('radio', { name: 'PLY, recommended' }).check();
  await page.getByRole('button', { name: 'Export file' }).click();
  const download = page.waitForEvent('download', { timeout: STEP_TIMEOUT_MS });
  await page
    .getByTestId('export-progress')
    .getByRole('link', { name: /^Download/ })
    .click({ timeout: STEP_TIMEOUT_MS });
  await (await download).saveAs(join(out, 'scene.ply'));
  await checkPage('export');

  await page.goto(new URL('/', link).href);
  await page.getByRole('button', { name: /^More about/ }).click();
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  await page.getByRole('button', { name: 'Undo' }).click();
  await page.getByRole('button', { name: /^More about/ }).waitFor();
  await checkPage('projects');
  report({ step: 'end', errors });
} catch (error) {
  await checkPage('failed').catch(() => {});
  report({ step: 'failed', why: String(error), at: page.url(), errors });
  process.exitCode = 1;
} finally {
  closeInput();
  await chromium.close();
}
