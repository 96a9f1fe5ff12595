// Measures page load times and the delay of progress on the screen: `node latency.mjs LINK PROJECT`

import { launchBrowser } from './browser.mjs';

const [link, project] = process.argv.slice(2);
const PAGE_LOADS = 5;
const chromium = await launchBrowser();
const context = await chromium.newContext({ viewport: { width: 1280, height: 800 } });
const page = await context.newPage();
await page.goto(link);

const paintMs = [];
const usableMs = [];
for (let k = 0; k < PAGE_LOADS; k++) {
  const emptyContext = await chromium.newContext({ viewport: { width: 1280, height: 800 } }); // without cache
  const freshPage = await emptyContext.newPage();
  const start = Date.now();
  await freshPage.goto(link, { waitUntil: 'commit' });
  await freshPage.getByRole('button', { name: 'Choose photos or a video' }).waitFor();
  usableMs.push(Date.now() - start);
  paintMs.push(
    await freshPage.evaluate(
      () =>
        new Promise((resolve) => {
          const firstPaint = (list) =>
            list.getEntries().find((entry) => entry.name === 'first-contentful-paint');
          new PerformanceObserver((list) => firstPaint(list) && resolve(firstPaint(list).startTime)).observe({
            type: 'paint',
            buffered: true,
          });
        }),
    ),
  );
  await emptyContext.close();
}

await page.goto(new URL(`/projects/${project}/photos`, link).href);
await page.getByRole('heading', { name: 'watched' }).waitFor();
console.log(JSON.stringify({ paint_ms: paintMs, usable_ms: usableMs }));

// The progress bar shows the step of a job with 40 steps. Each step is recorded in the frame that draws it.
const stepTimes = await page.evaluate(
  () =>
    new Promise((resolve) => {
      const times = new Map();
      const check = () => {
        const bar = document.querySelector('[data-testid=activity] [role=progressbar]');
        const value = bar?.getAttribute('aria-valuenow');
        const step = value ? Math.round((Number(value) / 100) * 40) : 0;
        if (step && !times.has(step)) times.set(step, Date.now());
        if (!bar && times.size) resolve([...times]);
        else requestAnimationFrame(check);
      };
      check();
    }),
);
console.log(JSON.stringify(stepTimes));
await chromium.close();
