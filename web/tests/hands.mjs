// What hands do besides clicking. `node hands.mjs keys|drop|upload LINK [PROJECT] FILES`
//
// keys: the whole studio by the keyboard alone; whatever is pressed, something has the focus, and it can be seen.
// drop: a folder is dropped from outside of the browser.
// upload: the server is killed in the middle of an upload, and the page closed in the middle of it.

import { browser, hold, quiet, tell, watched } from './browser.mjs';

const [what, link, ...more] = process.argv.slice(2);
const LONG = 120_000; // ms, for what a busy machine computes
const chromium = await browser();
const context = await chromium.newContext({
  viewport: { width: 520, height: 640 },
  reducedMotion: 'reduce',
});
const page = await context.newPage();
const wrong = watched(page, link);
page.setDefaultTimeout(LONG);

try {
  await { keys, drop, upload }[what](...more);
  tell({ step: 'end', wrong });
} catch (error) {
  const seen = await page.evaluate(() => `${JSON.stringify(window.__viewer)} ${document.body.innerText}`);
  tell({ step: 'failed', why: String(error), at: page.url(), seen, wrong });
  process.exitCode = 1;
} finally {
  quiet();
  await chromium.close();
}

// -- the keyboard alone ---------------------------------------------------------------------------------------------

/** What has the focus: its name and kind, and what is amiss with it, if anything is. */
function focused() {
  return page.evaluate(() => {
    const at = document.activeElement;
    if (!at || at === document.body) return { name: '', role: '', amiss: 'nothing has the focus' };
    const label = at.labels?.[0];
    const name = at.getAttribute('aria-label') ?? (label ?? at).innerText ?? '';
    const shown = [label, at].filter(Boolean).find((one) => {
      if (one.offsetWidth < 8) return false; // a radio that only those who listen know of
      const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(one);
      return (
        outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 && !/, 0\)$|transparent/.test(outlineColor)
      );
    });
    const box = (shown ?? at).getBoundingClientRect();
    const [x, y] = [
      (Math.max(0, box.left) + Math.min(innerWidth, box.right)) / 2,
      (Math.max(0, box.top) + Math.min(innerHeight, box.bottom)) / 2,
    ];
    const top = document.elementFromPoint(x, y);
    const over = top === null || !(shown ?? at).contains(top);
    const amiss = shown ? (over ? `lies under ${top?.outerHTML.slice(0, 80)}` : null) : 'has no outline';
    const role = at.getAttribute('role') ?? at.tagName.toLowerCase();
    return { name: name.trim().replace(/\s+/g, ' '), role, amiss };
  });
}

/** One press, or one that is held until so many frames were drawn; afterwards there is a focus that can be seen. */
async function press(key, frames = 0) {
  if (frames) {
    const before = await page.evaluate(() => window.__viewer.frames);
    await page.keyboard.down(key);
    await page.waitForFunction((least) => window.__viewer.frames >= least, before + frames);
    await page.keyboard.up(key);
  } else await page.keyboard.press(key);
  let now;
  for (let waited = 0; waited < 2000; waited += 50) {
    now = await focused();
    if (!now.amiss) return now;
    await page.waitForTimeout(50); // a room is still being fetched
  }
  wrong.push(`after ${key} at ${new URL(page.url()).pathname}: ${now.role} “${now.name}” ${now.amiss}`);
  return now;
}

/** Tab until something of this name has the focus, if nothing has that it is. */
async function reach(name, key = 'Tab') {
  const passed = [];
  for (let now = await focused(); passed.length < 60; now = await press(key)) {
    if (name.test(now.name)) return;
    passed.push(now.name.slice(0, 40) || now.role);
  }
  throw new Error(`${key} does not lead to ${name}, but to ${passed.join(' | ')}`);
}

function at(path) {
  return page.waitForURL((url) => path.test(url.pathname));
}

async function keys(folder) {
  await page.route('**/scan', small);
  page.on('filechooser', (chooser) => chooser.setFiles(folder)); // the system's own, with keys of its own
  await page.goto(link);
  await page.getByRole('heading', { name: /Drop photos/ }).waitFor();
  if (!/^Skip/.test((await press('Tab')).name)) wrong.push('the first Tab does not lead past the header');
  await reach(/^Choose a folder/);
  await press('Enter');
  await at(/photos$/);
  await page.getByRole('button', { name: 'Reconstruct scene' }).waitFor();
  await press('Tab');
  await reach(/^Good/);
  if (!/^Quick/.test((await press('ArrowLeft')).name)) wrong.push('an arrow does not choose');
  await reach(/^Reconstruct scene/);
  await press('Enter');
  await at(/train$/);
  const project = /projects\/(\w+)/.exec(page.url())[1];
  tell({ step: 'a project that trains', project });

  for (const room of ['Photos', 'Evaluate', 'Export', 'View']) {
    await reach(new RegExp(`^${room}$`), room === 'View' ? 'Shift+Tab' : 'Tab');
    await press('Enter');
    await at(new RegExp(`${room.toLowerCase()}$`));
  }
  await page.waitForFunction(() => window.__viewer?.loaded && window.__viewer.splats > 100);
  tell({ step: 'a scene' });
  await view();
  await dialogs(project);
}

/** Small for the machine's sake: a short training, and nothing after it. */
async function small(route) {
  const { train } = route.request().postDataJSON();
  const url = route.request().url().replace(/scan$/, 'jobs');
  const postData = { ...train, seconds: 2, settings: { cap: 2000 } };
  const answer = await route.fetch({ url, postData, timeout: 120_000 });
  await route.fulfill({ response: answer, json: [await answer.json()] });
}

/** Turn, walk, two key frames and their film. */
async function view() {
  await reach(/^Scene\. Arrow keys/);
  await reach(/^Copy link/);
  const where = async () => {
    await press('Enter');
    return new URL(page.url()).hash.replace('#view=', '').split(',').map(Number);
  };
  const views = [await where()];
  await reach(/^Scene\. Arrow keys/, 'Shift+Tab');
  await press('ArrowLeft', 2);
  await reach(/^Add view/);
  await press('Enter');
  await reach(/^Copy link/, 'Shift+Tab');
  views.push(await where());
  await reach(/^Walk:/, 'Shift+Tab');
  await press('Enter');
  await reach(/^Scene\. Arrow keys/, 'Shift+Tab');
  await press('ArrowDown', 2);
  await press('w', 2);
  await reach(/^Copy link/);
  views.push(await where());
  await reach(/^Add view/);
  await press('Enter');
  const pictures = await page
    .locator('li img')
    .evaluateAll((all) => all.map((one) => [one.naturalWidth, one.naturalHeight, one.alt, one.src]));
  tell({ step: 'moved', views, pictures, kept: await page.evaluate(() => ({ ...localStorage })) });

  await reach(/^Render video/);
  await press('Enter');
  await page.getByRole('dialog').waitFor();
  for (let steps = 0; steps < 7; steps++) {
    await press('Tab');
    if (!(await page.evaluate(() => document.activeElement.closest('[role=dialog]'))))
      wrong.push('Tab leads out of the dialog');
  }
  await reach(/^Render video/);
  await press('Enter');
  await page.getByTestId('video').waitFor();
  await closes(/^Render video/);
  tell({ step: 'rendering a video' });
}

/** Escape ends what is open, and the focus is where it was before. */
async function closes(before) {
  await press('Escape');
  await page.locator('[role=dialog], [role=menu]').waitFor({ state: 'detached' });
  await page.waitForTimeout(100);
  const { name, amiss } = await focused();
  if (!before.test(name) || amiss) wrong.push(`after closing, ${name || 'nothing'} has the focus: ${amiss}`);
}

/** Back to the projects: the bin, the menu of one, its new name. */
async function dialogs(project) {
  await reach(/^Lumigraph$/, 'Shift+Tab');
  await press('Enter');
  await at(/^\/$/);
  await reach(/^Bin/);
  await press('Enter');
  await page.getByRole('dialog').waitFor();
  await closes(/^Bin/);
  await reach(/^More about/);
  await press('Enter');
  await page.getByRole('menu').waitFor();
  await closes(/^More about/);
  await page.keyboard.press('Enter');
  await page.getByRole('menuitem', { name: 'Rename' }).waitFor();
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await closes(/^More about/);
  await reach(/^a table/, 'Shift+Tab');
  await press('Enter');
  await at(new RegExp(project));
  await press('Tab');
}

// -- files ----------------------------------------------------------------------------------------------------------

/** As from a file manager: the browser itself says that a folder is dragged in and let go of. */
async function drop(folder) {
  await page.goto(link);
  const zone = page.getByRole('region', { name: 'Drop photos here' });
  const { x, y, width, height } = await zone.boundingBox();
  const hands = await context.newCDPSession(page);
  const data = { items: [], files: [folder], dragOperationsMask: 1 };
  for (const type of ['dragEnter', 'dragOver', 'drop'])
    await hands.send('Input.dispatchDragEvent', { type, x: x + width / 2, y: y + height / 2, data });
  await at(/photos$/);
  await page.getByRole('button', { name: 'Reconstruct scene' }).waitFor();
  const project = /projects\/(\w+)/.exec(page.url())[1];
  tell({ step: 'dropped', project, name: await page.getByRole('heading', { level: 1 }).innerText() });
}

async function upload(project, file) {
  const offsets = [];
  page.on('request', (request) => {
    if (request.method() === 'PATCH') offsets.push(Number(request.headers()['upload-offset']));
  });
  page.on('dialog', (dialog) => dialog.accept()); // yes, leave the page
  const network = await context.newCDPSession(page);
  const pace = (uploadThroughput) =>
    network.send('Network.emulateNetworkConditions', {
      offline: false,
      latency: 0,
      downloadThroughput: -1,
      uploadThroughput,
    });
  const come = (part) =>
    page.waitForFunction(
      (least) =>
        Number(document.querySelector('[role=progressbar][aria-label=Uploading]')?.ariaValueNow) >= least,
      part,
    );
  await page.goto(link);
  await page.goto(new URL(`/projects/${project}/photos`, link).href);
  await network.send('Network.enable');
  await pace(5e6); // bytes a second
  await page.getByTestId('files').setInputFiles(file);
  await come(30);
  await hold({ step: 'kill' });
  await come(60); // by itself
  tell({ step: 'went on', offsets: [...offsets] });

  await page.reload();
  await page.getByTestId('files').waitFor({ state: 'attached' });
  await hold({ step: 'left' });
  await pace(-1);
  const whole = page.waitForResponse((one) => one.request().method() === 'PATCH' && one.ok());
  await page.getByTestId('files').setInputFiles(file);
  await whole;
  await page.getByRole('button', { name: 'Reconstruct scene' }).waitFor();
  tell({ step: 'arrived', offsets });
}
