import { cleanup, fireEvent, render, screen } from '@testing-library/react';
import { afterEach, expect, test } from 'vitest';

import { ComparisonSlider } from './ComparisonSlider';

afterEach(cleanup);

function show() {
  render(<ComparisonSlider photo="/photo.jpg" render="/render.jpg" name="a.jpg" />);
  const slider = screen.getByRole('slider', { name: 'Line between photo and render' });
  const press = (key: string, shiftKey = false) => fireEvent.keyDown(slider, { key, shiftKey });
  return { slider, press, at: () => Number(slider.getAttribute('aria-valuenow')) };
}

test('arrow keys move the line', () => {
  const { press, at } = show();
  expect(at()).toBe(50);
  press('ArrowRight');
  expect(at()).toBe(52);
  press('ArrowLeft', true);
  expect(at()).toBe(42);
});

test('Home and End reach the edges, positions are clamped', () => {
  const { slider, press, at } = show();
  press('End');
  press('PageUp');
  expect(at()).toBe(100);
  press('Home');
  press('ArrowLeft');
  expect(at()).toBe(0);
  expect(slider.getAttribute('aria-valuetext')).toBe('0 percent photo');
});

test('the photo is clipped at the line', () => {
  const { press } = show();
  press('PageDown');
  expect(screen.getByAltText('a.jpg, ground truth').style.clipPath).toBe('inset(0 60% 0 0)');
});
