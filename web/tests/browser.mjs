// Debian's Chromium with a software GPU and without background requests, and the messages of a script.
//
// A script writes one line of JSON to stdout for each message. After a message with `wait` it pauses until it reads a
// line from stdin.

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

export function launchBrowser() {
  const rootFlags = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [...FLAGS, ...rootFlags],
  });
}

let lines;

export const report = (message) => console.log(JSON.stringify(message));
/** Reports a message and waits for a line on stdin. */
export async function reportAndWait(message) {
  lines ??= createInterface({ input: process.stdin });
  const answer = new Promise((resolve) => lines.once('line', resolve));
  report({ ...message, wait: true });
  await answer;
}
/** Closes stdin, so that the process can end. */
export const closeInput = () => lines?.close();

/** Collects errors of a page: exceptions, policy violations, requests to other servers than that of `link`. */
export function collectErrors(page, link) {
  const errors = [];
  page.on('pageerror', (error) => errors.push(`page: ${error.message}`));
  page.on('console', (message) => {
    if (/Content.Security.Policy|Refused to/i.test(message.text())) errors.push(message.text());
  });
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (/^https?:$/.test(url.protocol) && url.origin !== new URL(link).origin)
      errors.push(`request to ${url.origin}`);
  });
  return errors;
}
