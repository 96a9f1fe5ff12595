// How soon the page is there, and when each step of a job is on the screen: `node measure.mjs LINK PROJECT`

import { browser } from './browser.mjs';

const [link, project] = process.argv.slice(2);
const TIMES = 5;
const chromium = await browser();
const context = await chromium.newContext({ viewport: { width: 1280, height: 800 } });
const page = await context.newPage();
await page.goto(link);

const paint = [];
const usable = [];
for (let k = 0; k < TIMES; k++) {
  const fresh = await chromium.newContext({ viewport: { width: 1280, height: 800 } }); // with nothing kept
  const one = await fresh.newPage();
  const start = Date.now();
  await one.goto(link, { waitUntil: 'commit' });
  await one.getByRole('button', { name: 'Choose photos or a video' }).waitFor();
  usable.push(Date.now() - start);
  paint.push(
    await one.evaluate(
      () =>
        new Promise((told) => {
          const found = (list) => list.getEntries().find((entry) => entry.name === 'first-contentful-paint');
          new PerformanceObserver((list) => found(list) && told(found(list).startTime)).observe({
            type: 'paint',
            buffered: true,
          });
        }),
    ),
  );
  await fresh.close();
}

await page.goto(new URL(`/projects/${project}/photos`, link).href);
await page.getByRole('heading', { name: 'watched' }).waitFor();
console.log(JSON.stringify({ paint_ms: paint, usable_ms: usable }));

// The bar's value is the step, of forty: each is noted when the frame that shows it is drawn.
const seen = await page.evaluate(
  () =>
    new Promise((told) => {
      const found = new Map();
      const look = () => {
        const bar = document.querySelector('[data-testid=activity] [role=progressbar]');
        const value = bar?.getAttribute('aria-valuenow');
        const step = value ? Math.round((Number(value) / 100) * 40) : 0;
        if (step && !found.has(step)) found.set(step, Date.now());
        if (!bar && found.size) told([...found]);
        else requestAnimationFrame(look);
      };
      look();
    }),
);
console.log(JSON.stringify(seen));
await chromium.close();
