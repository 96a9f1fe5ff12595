// Exports files through the Export tab. `node exports.mjs LINK PROJECT OUT`
//
// Reports for each file its path, the status texts during the export and the final report of the page.

import { join } from 'node:path';

import { collectErrors, launchBrowser, report } from './browser.mjs';

const [link, project, out] = process.argv.slice(2);
const EXPORT_TIMEOUT_MS = 180_000;
const FAST_SETTINGS = { Resolution: 48, Triangles: 400, Texture: 128, Views: 6, Size: 64 };
/** Content, format and settings. */
const EXPORTS = [
  ['Mesh with texture', 'GLB, recommended', FAST_SETTINGS],
  ['Mesh with texture', 'USDZ', FAST_SETTINGS],
  ['Mesh with texture', 'FBX', FAST_SETTINGS],
  ['Splats', 'SOG', {}],
];

const chromium = await launchBrowser();
const context = await chromium.newContext({
  viewport: { width: 900, height: 1000 },
  reducedMotion: 'reduce',
});
const page = await context.newPage();
page.setDefaultTimeout(EXPORT_TIMEOUT_MS);
const errors = collectErrors(page, link);
try {
  await page.goto(link);
  await page.goto(new URL(`/projects/${project}/export`, link).href);
  for (const [content, format, settings] of EXPORTS) report(await exportFile(content, format, settings));
  report({ step: 'end', errors });
} catch (error) {
  await page.screenshot({ path: join(out, 'failed.png'), fullPage: true }).catch(() => {});
  report({ step: 'failed', why: String(error), at: page.url(), errors });
  process.exitCode = 1;
} finally {
  await chromium.close();
}

async function exportFile(content, format, settings) {
  await page.getByRole('radio', { name: content, exact: true }).check();
  const radio = page.getByRole('radio', { name: format, exact: true });
  await radio.check();
  for (const [name, value] of Object.entries(settings)) {
    const field = page.getByLabel(name, { exact: true });
    if (!(await field.isVisible())) await page.getByText('Settings', { exact: true }).click();
    await field.fill(String(value));
  }
  await recordStages();
  await page.getByRole('button', { name: 'Export file' }).click();
  const name = format.replace(/, recommended$/, '').toLowerCase();
  const file = page
    .getByTestId('export-progress')
    .getByRole('link', { name: new RegExp(`^Download .*\\.${name} `) });
  const download = page.waitForEvent('download');
  await file.click();
  const path = join(out, `${content.split(' ')[0].toLowerCase()}.${name}`);
  await (await download).saveAs(path);
  const text = await page.getByTestId('export-progress').getByRole('status').innerText();
  return { step: 'exported', path, report: text, stages: await page.evaluate(() => window.stages) };
}

/** Records the stages that the activity bar shows from now on. */
function recordStages() {
  return page.evaluate(() => {
    window.stages = [];
    window.stageObserver?.disconnect();
    window.stageObserver = new MutationObserver(() => {
      const bar = document.querySelector('[data-testid=activity] span')?.innerText;
      const stage = bar?.replace(/, [^,]* left$/, '');
      if (stage && window.stages.at(-1) !== stage) window.stages.push(stage);
    });
    window.stageObserver.observe(document.body, { subtree: true, childList: true, characterData: true });
  });
}
