// A person's way through the studio, by clicks alone. `node story.mjs LINK PHOTOS OUT [WIDTHxHEIGHT]`

import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { browser, hold, quiet, tell, watched } from './browser.mjs';

const [link, photos, out, size = '480x320'] = process.argv.slice(2);
const [width, height] = size.split('x').map(Number);
const LONG = 180_000; // ms, for what a busy machine computes
const FEW = 6000; // gaussians: as many as a processor that plays graphics card draws in time

const chromium = await browser();
const context = await chromium.newContext({
  viewport: { width, height: height + 480 },
  acceptDownloads: true,
  reducedMotion: 'reduce',
});
const page = await context.newPage();
page.setDefaultTimeout(LONG);
const wrong = watched(page, link);
// Small for the machine's sake: what is asked for stays the same but for the number of gaussians.
await page.route('**/scan', async (route) => {
  const asked = route.request().postDataJSON();
  asked.train.settings = { cap: FEW };
  await route.continue({ postData: JSON.stringify(asked) });
});

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core'), 'utf8');
const THEMES = ['light', 'dark'];

/** A picture of the page as it is, and whatever about it shuts somebody out. */
async function shot(name) {
  await page.screenshot({ path: join(out, `${name}.png`) });
  for (const colorScheme of THEMES) {
    await page.emulateMedia({ colorScheme });
    await page.waitForTimeout(150); // colours have changed
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() =>
      window.axe.run(document, { resultTypes: ['violations'] }),
    );
    for (const one of violations) {
      wrong.push(
        `${name}, ${colorScheme}: ${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).join(' ')}`,
      );
    }
  }
  await page.emulateMedia({ colorScheme: 'light' });
}

const room = (name) => page.getByRole('link', { name, exact: true }).click();
const activity = () => page.getByTestId('activity');

try {
  const start = Date.now();
  await page.goto(link);
  await page.getByRole('heading', { name: /Drop photos/ }).waitFor();
  tell({ step: 'first paint', ms: Date.now() - start });

  const files = readdirSync(photos).map((name) => join(photos, name));
  await page.getByTestId('files').setInputFiles(files);
  await page.getByRole('button', { name: 'Reconstruct scene' }).waitFor({ timeout: LONG });
  await shot('photos');
  await page.getByText('Quick', { exact: false }).click();
  await page.getByRole('button', { name: 'Reconstruct scene' }).click();
  await page.waitForURL(/\/train$/);
  const project = /projects\/(\w+)/.exec(page.url())[1];
  tell({ step: 'scan submitted', project });

  await activity()
    .getByText(/^Training/)
    .waitFor({ timeout: LONG });
  await page.getByText('Held-out views', { exact: false }).first().waitFor({ timeout: LONG });
  await shot('training');
  await page.reload();
  await activity()
    .getByText(/^Training/)
    .waitFor({ timeout: LONG });
  tell({ step: 'reloaded in the middle of training' });

  await room('View');
  await page.waitForFunction(() => window.__viewer?.loaded && window.__viewer.splats > 100, null, {
    timeout: LONG,
  });
  const first = await page.evaluate(() => window.__viewer.loaded);
  await shot('appearing');
  await hold({ step: 'seen while it trains', scene: first });

  // The worker has been killed meanwhile: it goes on, and a newer state takes the older one's place.
  await page.waitForFunction((before) => window.__viewer?.loaded !== before, first, { timeout: LONG });
  await page.waitForFunction(() => !document.querySelector('[data-testid=activity]'), null, {
    timeout: LONG,
  });
  await page.waitForTimeout(1500);
  await page
    .locator('canvas')
    .first()
    .screenshot({ path: join(out, 'canvas.png') });
  await shot('view');
  await page.getByRole('button', { name: 'Copy link to this view' }).click();
  tell({
    step: 'finished',
    scene: await page.evaluate(() => window.__viewer.loaded),
    view: new URL(page.url()).hash,
  });

  await room('Photos');
  await page.locator('canvas').first().waitFor();
  await page.waitForTimeout(1500);
  await shot('cameras');
  await page.getByRole('button', { name: 'IMG_0012.jpg' }).click();
  await page.getByRole('link', { name: 'View the scene from here' }).click();
  await page.waitForFunction(() => window.__viewer?.loaded, null, { timeout: LONG });
  await page.waitForTimeout(1500);
  await page
    .locator('canvas')
    .first()
    .screenshot({ path: join(out, 'stood.png') });

  await room('Evaluate');
  const line = page.getByRole('slider', { name: /Line between/ });
  await line.waitFor({ timeout: LONG });
  await line.press('ArrowLeft');
  await shot('evaluate');

  await room('Export');
  await page.getByRole('radio', { name: 'PLY, recommended' }).check();
  await page.getByRole('button', { name: 'Export file' }).click();
  const coming = page.waitForEvent('download', { timeout: LONG });
  await page
    .getByTestId('export-progress')
    .getByRole('link', { name: /^Download/ })
    .click({ timeout: LONG });
  await (await coming).saveAs(join(out, 'scene.ply'));
  await shot('export');

  await page.goto(new URL('/', link).href);
  await page.getByRole('button', { name: /^More about/ }).click();
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  await page.getByRole('button', { name: 'Undo' }).click();
  await page.getByRole('button', { name: /^More about/ }).waitFor();
  await shot('projects');
  tell({ step: 'end', wrong });
} catch (error) {
  await shot('failed').catch(() => {});
  tell({ step: 'failed', why: String(error), at: page.url(), wrong });
  process.exitCode = 1;
} finally {
  quiet();
  await chromium.close();
}
