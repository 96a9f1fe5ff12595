// Debian's Chromium with a software GPU, and no request of its own to the outside; and how it tells what it comes to.
//
// A script tells on stdout, a line of JSON each; after a line with `wait` it goes on when a line comes in.

import { createInterface } from 'node:readline';

import { chromium } from 'playwright-core';

const FLAGS = [
  '--use-angle=swiftshader',
  '--enable-unsafe-swiftshader',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function browser() {
  const root = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [...FLAGS, ...root],
  });
}

let lines;

export const tell = (what) => console.log(JSON.stringify(what));
export async function hold(what) {
  lines ??= createInterface({ input: process.stdin });
  const answer = new Promise((came) => lines.once('line', came));
  tell({ ...what, wait: true });
  await answer;
}
/** Nothing more is waited for: the process may end. */
export const quiet = () => lines?.close();

/** What goes wrong on a page from now on: errors, the policy broken, requests to anywhere but the server of `link`. */
export function watched(page, link) {
  const wrong = [];
  page.on('pageerror', (error) => wrong.push(`page: ${error.message}`));
  page.on('console', (message) => {
    if (/Content.Security.Policy|Refused to/i.test(message.text())) wrong.push(message.text());
  });
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (/^https?:$/.test(url.protocol) && url.origin !== new URL(link).origin)
      wrong.push(`asked ${url.origin}`);
  });
  return wrong;
}
