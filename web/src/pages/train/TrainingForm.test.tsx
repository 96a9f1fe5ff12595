import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { cleanup, fireEvent, render, screen, waitFor } from '@testing-library/react';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { begin, server } from '../../api/fakeServer';
import { METHODS } from './methodFixtures';
import { StartPanel } from './TrainingForm';

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
      <StartPanel project="p" needs={[]} onStarted={started} />
    </QueryClientProvider>,
  );
  return started;
}

async function openSettings() {
  fireEvent.click(screen.getByRole('button', { name: 'Settings' }));
  await screen.findByLabelText('Most gaussians');
}

const start = () => fireEvent.click(screen.getByRole('button', { name: 'Start training' }));
const type = (label: string, value: string) =>
  fireEvent.change(screen.getByLabelText(label), { target: { value } });

test('a preset is all that is needed, and the judging follows', async () => {
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

test('another budget is none of the presets', async () => {
  show();
  await openSettings();
  type('Stop after', '45');
  for (const radio of screen.getAllByRole('radio')) expect(radio).toHaveProperty('checked', false);
  type('Stop after', '600');
  expect(screen.getByRole('radio', { name: 'Best' })).toHaveProperty('checked', true);
});

test('the form is made of the schema, and sends only what was changed', async () => {
  const started = show();
  await openSettings();
  expect(screen.getByLabelText('Most gaussians').getAttribute('max')).toBe('50000000');
  expect(screen.getByLabelText('Densify').tagName).toBe('SELECT');
  expect(screen.getByLabelText('Exposure').getAttribute('type')).toBe('checkbox');
  expect(screen.getByLabelText('Limit').getAttribute('placeholder')).toBe('Chosen for you');
  expect(screen.getAllByLabelText('Seed')).toHaveLength(1);
  type('Densify', 'mixed');
  type('Axis, 1', '1');
  type('Most gaussians', '5');
  type('Most gaussians', '0');
  fireEvent.click(screen.getByLabelText('Exposure'));
  type('Keep back for judging', '0');
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
  type('Unit of the budget', 'steps');
  start();
  await waitFor(() => expect(started).toHaveBeenCalled());
  expect(server.asked[0]).toEqual({ verb: 'train', method: 'ngp', steps: 120, settings: { samples: 512 } });
});

test('what is out of range is said at its field, and not sent', async () => {
  show();
  await openSettings();
  type('Most gaussians', '-3');
  const field = screen.getByLabelText('Most gaussians');
  expect(field.getAttribute('aria-invalid')).toBe('true');
  expect(field.getAttribute('aria-describedby')).toContain(screen.getByText('Must be at least 0').id);
  start();
  await Promise.resolve();
  expect(server.asked).toEqual([]);
});

test('a refusal of the server stands at the field it is about', async () => {
  show();
  await openSettings();
  type('Most gaussians', '7');
  server.refuse = problem;
  start();
  const words = await screen.findByText('Must be even');
  expect(screen.getByLabelText('Most gaussians').getAttribute('aria-describedby')).toContain(words.id);
  expect(screen.queryByRole('alert')).toBeNull();
  type('Most gaussians', '8');
  await waitFor(() => expect(screen.queryByText('Must be even')).toBeNull());
});

test('a refusal of nothing in the form is said beside the button', async () => {
  show();
  server.refuse = Object.assign({ title: 'Disk full', status: 507 }, { detail: 'There is no room left.' });
  start();
  expect((await screen.findByRole('alert')).textContent).toBe('There is no room left.');
});
