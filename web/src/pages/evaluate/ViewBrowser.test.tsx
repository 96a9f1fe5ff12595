import { cleanup, fireEvent, render, screen } from '@testing-library/react';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { sortViews, type View } from './viewOrder';
import { ViewBrowser } from './ViewBrowser';

const view = (name: string, psnr: number | null, ssim: number): View => ({
  name,
  psnr,
  ssim,
  photo: `${name}-photo.jpg`,
  render: `${name}-render.jpg`,
});
const VIEWS = [view('b10', 30, 0.7), view('b9', null, 1), view('a', 20, 0.8)];
const names = (views: View[]) => views.map((one) => one.name);

test('sortViews: worst first, infinite PSNR last', () => {
  expect(names(sortViews(VIEWS, 'psnr', false))).toEqual(['a', 'b10', 'b9']);
  expect(names(sortViews(VIEWS, 'ssim', true))).toEqual(['b9', 'a', 'b10']);
  expect(names(sortViews(VIEWS, 'name', false))).toEqual(['a', 'b9', 'b10']);
});

beforeEach(() => {
  Element.prototype.scrollIntoView = () => undefined;
});
afterEach(cleanup);

const shown = () => screen.getByRole('region').getAttribute('aria-label');

test('arrow keys change the view, or move the focused slider', () => {
  render(<ViewBrowser project="p" run="r" views={VIEWS} />);
  expect(shown()).toBe('View a');
  fireEvent.keyDown(document.body, { key: 'ArrowRight' });
  expect(shown()).toBe('View b10');
  fireEvent.keyDown(screen.getByRole('slider'), { key: 'ArrowRight' });
  expect(shown()).toBe('View b10');
  fireEvent.keyDown(document.body, { key: 'ArrowLeft' });
  fireEvent.keyDown(document.body, { key: 'ArrowLeft' });
  expect(shown()).toBe('View a');
});

test('a new order keeps the chosen view', () => {
  render(<ViewBrowser project="p" run="r" views={VIEWS} />);
  fireEvent.click(screen.getByRole('button', { name: /b10/ }));
  fireEvent.click(screen.getByRole('button', { name: /^SSIM/ }));
  expect(shown()).toBe('View b10');
  expect(screen.getByText('1 of 3')).toBeTruthy();
});
