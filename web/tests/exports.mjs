// Files by the export room, as somebody clicks them together. `node exports.mjs LINK PROJECT OUT`
//
// Tells of each what the page said while it was made and after, and where its bytes lie.

import { join } from 'node:path';

import { browser, tell, watched } from './browser.mjs';

const [link, project, out] = process.argv.slice(2);
const LONG = 180_000; // ms, for what a busy machine computes
// What is wanted, its form, and whatever keeps a tiny scene quick.
const SMALL = { Resolution: 48, Triangles: 400, Texture: 128, Views: 6, Size: 64 };
const WISHES = [
  ['Mesh with texture', 'GLB, recommended', SMALL],
  ['Mesh with texture', 'USDZ', SMALL],
  ['Mesh with texture', 'FBX', SMALL],
  ['Splats', 'SOG', {}],
];

const chromium = await browser();
const context = await chromium.newContext({
  viewport: { width: 900, height: 1000 },
  reducedMotion: 'reduce',
});
const page = await context.newPage();
page.setDefaultTimeout(LONG);
const wrong = watched(page, link);
try {
  await page.goto(link);
  await page.goto(new URL(`/projects/${project}/export`, link).href);
  for (const [want, form, settings] of WISHES) tell(await made(want, form, settings));
  tell({ step: 'end', wrong });
} catch (error) {
  await page.screenshot({ path: join(out, 'failed.png'), fullPage: true }).catch(() => {});
  tell({ step: 'failed', why: String(error), at: page.url(), wrong });
  process.exitCode = 1;
} finally {
  await chromium.close();
}

async function made(want, form, settings) {
  await page.getByRole('radio', { name: want, exact: true }).check();
  const radio = page.getByRole('radio', { name: form, exact: true });
  await radio.check();
  for (const [name, value] of Object.entries(settings)) {
    const field = page.getByLabel(name, { exact: true });
    if (!(await field.isVisible())) await page.getByText('Settings', { exact: true }).click();
    await field.fill(String(value));
  }
  await hear();
  await page.getByRole('button', { name: 'Export file' }).click();
  const name = form.replace(/, recommended$/, '').toLowerCase();
  const file = page
    .getByTestId('export-progress')
    .getByRole('link', { name: new RegExp(`^Download .*\\.${name} `) });
  const coming = page.waitForEvent('download');
  await file.click();
  const path = join(out, `${want.split(' ')[0].toLowerCase()}.${name}`);
  await (await coming).saveAs(path);
  const said = await page.getByTestId('export-progress').getByRole('status').innerText();
  return { step: 'made', path, said, heard: await page.evaluate(() => window.heard) };
}

/** From now on, whatever the bar above the rooms says of the work. */
function hear() {
  return page.evaluate(() => {
    window.heard = [];
    window.hearing?.disconnect();
    window.hearing = new MutationObserver(() => {
      const bar = document.querySelector('[data-testid=activity] span')?.innerText;
      const words = bar?.replace(/, [^,]* left$/, '');
      if (words && window.heard.at(-1) !== words) window.heard.push(words);
    });
    window.hearing.observe(document.body, { subtree: true, childList: true, characterData: true });
  });
}
