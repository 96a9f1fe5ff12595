// Interaction besides clicks. `node interaction.mjs keys|drop|upload LINK [PROJECT] FILES`
//
// keys: the whole studio by keyboard alone. After each key an element has a visible focus.
// drop: a folder dropped from outside the browser.
// upload: the server is killed during an upload, then the page is closed during it.

import { closeInput, collectErrors, launchBrowser, report, reportAndWait } from './browser.mjs';

const [command, link, ...parameters] = process.argv.slice(2);
const PAGE_TIMEOUT_MS = 120_000;
const chromium = await launchBrowser();
const context = await chromium.newContext({
  viewport: { width: 520, height: 640 },
  reducedMotion: 'reduce',
});
const page = await context.newPage();
const errors = collectErrors(page, link);
page.setDefaultTimeout(PAGE_TIMEOUT_MS);

try {
  await { keys, drop, upload }[command](...parameters);
  report({ step: 'end', errors });
} catch (error) {
  const text = await page.evaluate(() => `${JSON.stringify(window.__viewer)} ${document.body.innerText}`);
  report({ step: 'failed', why: String(error), at: page.url(), text, errors });
  process.exitCode = 1;
} finally {
  closeInput();
  await chromium.close();
}

// -- keyboard alone -------------------------------------------------------------------------------------------------

/** The focused element. `problem` is null if the focus is visible. */
function focusedElement() {
  return page.evaluate(() => {
    const element = document.activeElement;
    if (!element || element === document.body)
      return { name: '', role: '', problem: 'no element has the focus' };
    const label = element.labels?.[0];
    const name = element.getAttribute('aria-label') ?? (label ?? element).innerText ?? '';
    const outlined = [label, element].filter(Boolean).find((candidate) => {
      if (candidate.offsetWidth < 8) return false; // a radio button for screen readers only
      const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(candidate);
      return (
        outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 && !/, 0\)$|transparent/.test(outlineColor)
      );
    });
    const box = (outlined ?? element).getBoundingClientRect();
    const [x, y] = [
      (Math.max(0, box.left) + Math.min(innerWidth, box.right)) / 2,
      (Math.max(0, box.top) + Math.min(innerHeight, box.bottom)) / 2,
    ];
    const top = document.elementFromPoint(x, y);
    const isCovered = top === null || !(outlined ?? element).contains(top);
    const problem = outlined
      ? isCovered
        ? `is covered by ${top?.outerHTML.slice(0, 80)}`
        : null
      : 'has no outline';
    const role = element.getAttribute('role') ?? element.tagName.toLowerCase();
    return { name: name.trim().replace(/\s+/g, ' '), role, problem };
  });
}

/** Presses a key, or holds it for a number of frames; then checks for a visible focus. */
async function press(key, frames = 0) {
  if (frames) {
    const before = await page.evaluate(() => window.__viewer.frames);
    await page.keyboard.down(key);
    await page.waitForFunction((minimum) => window.__viewer.frames >= minimum, before + frames);
    await page.keyboard.up(key);
  } else await page.keyboard.press(key);
  let focus;
  for (let waited = 0; waited < 2000; waited += 50) {
    focus = await focusedElement();
    if (!focus.problem) return focus;
    await page.waitForTimeout(50); // the tab is still loading
  }
  errors.push(
    `after ${key} at ${new URL(page.url()).pathname}: ${focus.role} “${focus.name}” ${focus.problem}`,
  );
  return focus;
}

/** Presses `key` until an element of this name has the focus. */
async function focusOn(name, key = 'Tab') {
  const visited = [];
  for (let focus = await focusedElement(); visited.length < 60; focus = await press(key)) {
    if (name.test(focus.name)) return;
    visited.push(focus.name.slice(0, 40) || focus.role);
  }
  throw new Error(`${key} does not lead to ${name}, but to ${visited.join(' | ')}`);
}

function waitForPath(path) {
  return page.waitForURL((url) => path.test(url.pathname));
}

async function keys(folder) {
  await page.route('**/scan', shortenTraining);
  page.on('filechooser', (chooser) => chooser.setFiles(folder)); // the native dialog has its own keys
  await page.goto(link);
  await page.getByRole('heading', { name: /Drop photos/ }).waitFor();
  if (!/^Skip/.test((await press('Tab')).name)) errors.push('the first Tab does not skip the header');
  await focusOn(/^Choose a folder/);
  await press('Enter');
  await waitForPath(/photos$/);
  await page.getByRole('button', { name: 'Reconstruct scene' }).waitFor();
  await press('Tab');
  await focusOn(/^Good/);
  if (!/^Quick/.test((await press('ArrowLeft')).name)) errors.push('an arrow key does not select');
  await focusOn(/^Reconstruct scene/);
  await press('Enter');
  await waitForPath(/train$/);
  const project = /projects\/(\w+)/.exec(page.url())[1];
  report({ step: 'training', project });

  for (const tab of ['Photos', 'Evaluate', 'Export', 'View']) {
    await focusOn(new RegExp(`^${tab}$`), tab === 'View' ? 'Shift+Tab' : 'Tab');
    await press('Enter');
    await waitForPath(new RegExp(`${tab.toLowerCase()}$`));
  }
  await page.waitForFunction(() => window.__viewer?.loaded && window.__viewer.splats > 100);
  report({ step: 'scene loaded' });
  await navigate();
  await visitDialogs(project);
}

/** Replaces the scan by a short training. */
async function shortenTraining(route) {
  const { train } = route.request().postDataJSON();
  const url = route.request().url().replace(/scan$/, 'jobs');
  const postData = { ...train, seconds: 2, settings: { cap: 2000 } };
  const answer = await route.fetch({ url, postData, timeout: 120_000 });
  await route.fulfill({ response: answer, json: [await answer.json()] });
}

/** Orbit, walk, two key frames and their video. */
async function navigate() {
  await focusOn(/^Scene\. Arrow keys/);
  await focusOn(/^Copy link/);
  const currentView = async () => {
    await press('Enter');
    return new URL(page.url()).hash.replace('#view=', '').split(',').map(Number);
  };
  const views = [await currentView()];
  await focusOn(/^Scene\. Arrow keys/, 'Shift+Tab');
  await press('ArrowLeft', 2);
  await focusOn(/^Add view/);
  await press('Enter');
  await focusOn(/^Copy link/, 'Shift+Tab');
  views.push(await currentView());
  await focusOn(/^Walk:/, 'Shift+Tab');
  await press('Enter');
  await focusOn(/^Scene\. Arrow keys/, 'Shift+Tab');
  await press('ArrowDown', 2);
  await press('w', 2);
  await focusOn(/^Copy link/);
  views.push(await currentView());
  await focusOn(/^Add view/);
  await press('Enter');
  const thumbnails = await page
    .locator('li img')
    .evaluateAll((images) =>
      images.map((image) => [image.naturalWidth, image.naturalHeight, image.alt, image.src]),
    );
  const storage = await page.evaluate(() => ({ ...localStorage }));
  report({ step: 'navigated', views, thumbnails, storage });

  await focusOn(/^Render video/);
  await press('Enter');
  await page.getByRole('dialog').waitFor();
  for (let steps = 0; steps < 7; steps++) {
    await press('Tab');
    if (!(await page.evaluate(() => document.activeElement.closest('[role=dialog]'))))
      errors.push('Tab leads out of the dialog');
  }
  await focusOn(/^Render video/);
  await press('Enter');
  await page.getByTestId('video').waitFor();
  await closeByEscape(/^Render video/);
  report({ step: 'rendering a video' });
}

/** Closes a dialog or menu with Escape and checks that the focus returns to the element `opener`. */
async function closeByEscape(opener) {
  await press('Escape');
  await page.locator('[role=dialog], [role=menu]').waitFor({ state: 'detached' });
  await page.waitForTimeout(100);
  const { name, problem } = await focusedElement();
  if (!opener.test(name) || problem)
    errors.push(`after closing, ${name || 'no element'} has the focus: ${problem}`);
}

/** Projects page: the bin, the menu of a project, its Rename dialog. */
async function visitDialogs(project) {
  await focusOn(/^Lumigraph$/, 'Shift+Tab');
  await press('Enter');
  await waitForPath(/^\/$/);
  await focusOn(/^Bin/);
  await press('Enter');
  await page.getByRole('dialog').waitFor();
  await closeByEscape(/^Bin/);
  await focusOn(/^More about/);
  await press('Enter');
  await page.getByRole('menu').waitFor();
  await closeByEscape(/^More about/);
  await page.keyboard.press('Enter');
  await page.getByRole('menuitem', { name: 'Rename' }).waitFor();
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await closeByEscape(/^More about/);
  await focusOn(/^a table/, 'Shift+Tab');
  await press('Enter');
  await waitForPath(new RegExp(project));
  await press('Tab');
}

// -- files ----------------------------------------------------------------------------------------------------------

/** Drops a folder as from a file manager, with drag events of the browser itself. */
async function drop(folder) {
  await page.goto(link);
  const zone = page.getByRole('region', { name: 'Drop photos here' });
  const { x, y, width, height } = await zone.boundingBox();
  const session = await context.newCDPSession(page);
  const data = { items: [], files: [folder], dragOperationsMask: 1 };
  for (const type of ['dragEnter', 'dragOver', 'drop'])
    await session.send('Input.dispatchDragEvent', { type, x: x + width / 2, y: y + height / 2, data });
  await waitForPath(/photos$/);
  await page.getByRole('button', { name: 'Reconstruct scene' }).waitFor();
  const project = /projects\/(\w+)/.exec(page.url())[1];
  report({ step: 'dropped', project, name: await page.getByRole('heading', { level: 1 }).innerText() });
}

async function upload(project, file) {
  const offsets = [];
  page.on('request', (request) => {
    if (request.method() === 'PATCH') offsets.push(Number(request.headers()['upload-offset']));
  });
  page.on('dialog', (dialog) => dialog.accept()); // confirm leaving the page
  const network = await context.newCDPSession(page);
  const setUploadSpeed = (uploadThroughput) =>
    network.send('Network.emulateNetworkConditions', {
      offline: false,
      latency: 0,
      downloadThroughput: -1,
      uploadThroughput,
    });
  const waitForPercent = (percent) =>
    page.waitForFunction(
      (minimum) =>
        Number(document.querySelector('[role=progressbar][aria-label=Uploading]')?.ariaValueNow) >= minimum,
      percent,
    );
  await page.goto(link);
  await page.goto(new URL(`/projects/${project}/photos`, link).href);
  await network.send('Network.enable');
  await setUploadSpeed(5e6); // bytes per second
  await page.getByTestId('files').setInputFiles(file);
  await waitForPercent(30);
  await reportAndWait({ step: 'kill' });
  await waitForPercent(60); // resumes without a click
  report({ step: 'resumed', offsets: [...offsets] });

  await page.reload();
  await page.getByTestId('files').waitFor({ state: 'attached' });
  await reportAndWait({ step: 'page closed' });
  await setUploadSpeed(-1);
  const lastResponse = page.waitForResponse(
    (response) => response.request().method() === 'PATCH' && response.ok(),
  );
  await page.getByTestId('files').setInputFiles(file);
  await lastResponse;
  await page.getByRole('button', { name: 'Reconstruct scene' }).waitFor();
  report({ step: 'uploaded', offsets });
}
