import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { cleanup, fireEvent, render, screen, waitFor } from '@testing-library/react';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { begin, server } from '../../api/fakeServer';
import { METHODS } from './methodFixtures';
import { TrainingForm } from './TrainingForm';

const problem = {
  title: 'Invalid request',
  status: 422,
  detail: 'settings.cap: must be even',
  errors: [{ where: 'body', path: '$.settings.cap', detail: 'must be even' }],
};

beforeEach(() => begin({ '/methods': METHODS }));
afterEach(cleanup);

function show() {
  const started = vi.fn();
  render(
    <QueryClientProvider client={new QueryClient()}>
      <TrainingForm project="p" needs={[]} onStarted={started} />
    </QueryClientProvider>,
  );
  return started;
}

async function openSettings() {
  fireEvent.click(screen.getByRole('button', { name: 'Settings' }));
  await screen.findByLabelText('Gaussian limit');
}

const start = () => fireEvent.click(screen.getByRole('button', { name: 'Start training' }));
const type = (label: string, value: string) =>
  fireEvent.change(screen.getByLabelText(label), { target: { value } });

test('a preset submits training and evaluation', async () => {
  const started = show();
  expect(screen.getByRole('radio', { name: 'Good' })).toHaveProperty('checked', true);
  fireEvent.click(screen.getByRole('radio', { name: 'Quick' }));
  start();
  await waitFor(() => expect(started).toHaveBeenCalledWith('job1'));
  expect(server.asked).toEqual([
    { verb: 'train', seconds: 30 },
    { verb: 'evaluate', run: 'job1' },
  ]);
});

test('a custom budget selects no preset', async () => {
  show();
  await openSettings();
  type('Budget', '45');
  for (const radio of screen.getAllByRole('radio')) expect(radio).toHaveProperty('checked', false);
  type('Budget', '600');
  expect(screen.getByRole('radio', { name: 'Best' })).toHaveProperty('checked', true);
});

test('builds fields from the schema and sends changed values only', async () => {
  const started = show();
  await openSettings();
  expect(screen.getByLabelText('Gaussian limit').getAttribute('max')).toBe('50000000');
  expect(screen.getByLabelText('Densify').tagName).toBe('SELECT');
  expect(screen.getByLabelText('Exposure').getAttribute('type')).toBe('checkbox');
  expect(screen.getByLabelText('Limit').getAttribute('placeholder')).toBe('Automatic');
  expect(screen.getAllByLabelText('Seed')).toHaveLength(1);
  type('Densify', 'mixed');
  type('Axis, 1', '1');
  type('Gaussian limit', '5');
  type('Gaussian limit', '0');
  fireEvent.click(screen.getByLabelText('Exposure'));
  type('Hold-out interval', '0');
  start();
  await waitFor(() => expect(started).toHaveBeenCalled());
  expect(server.asked).toEqual([
    {
      verb: 'train',
      seconds: 120,
      holdout: 0,
      settings: { densify: 'mixed', exposure: true, axis: [1, 0, 1] },
    },
  ]);
});

test('another method has its own settings', async () => {
  const started = show();
  await openSettings();
  type('Method', 'ngp');
  type('Samples', '512');
  type('Budget unit', 'steps');
  start();
  await waitFor(() => expect(started).toHaveBeenCalled());
  expect(server.asked[0]).toEqual({ verb: 'train', method: 'ngp', steps: 120, settings: { samples: 512 } });
});

test('a value out of range shows an error and is not sent', async () => {
  show();
  await openSettings();
  type('Gaussian limit', '-3');
  const field = screen.getByLabelText('Gaussian limit');
  expect(field.getAttribute('aria-invalid')).toBe('true');
  expect(field.getAttribute('aria-describedby')).toContain(screen.getByText('Must be at least 0').id);
  start();
  await Promise.resolve();
  expect(server.asked).toEqual([]);
});

test('a server error is shown at its field', async () => {
  show();
  await openSettings();
  type('Gaussian limit', '7');
  server.refuse = problem;
  start();
  const words = await screen.findByText('Must be even');
  expect(screen.getByLabelText('Gaussian limit').getAttribute('aria-describedby')).toContain(words.id);
  expect(screen.queryByRole('alert')).toBeNull();
  type('Gaussian limit', '8');
  await waitFor(() => expect(screen.queryByText('Must be even')).toBeNull());
});

test('a server error without a field is shown next to the button', async () => {
  show();
  server.refuse = Object.assign({ title: 'Disk full', status: 507 }, { detail: 'There is no room left.' });
  start();
  expect((await screen.findByRole('alert')).textContent).toBe('There is no room left.');
});
