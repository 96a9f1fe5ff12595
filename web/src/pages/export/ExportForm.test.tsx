import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { act, cleanup, fireEvent, render, screen, waitFor, within } from '@testing-library/react';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { begin, server } from '../../api/fakeServer';
import type { Job } from '../../api/client';
import type { RunSummary } from '../../api/previews';
import { useStudio } from '../../state/store';
import { OFFERS } from './formatFixtures';
import { Make } from './ExportForm';

const SHOWN = { parts: ['0.spz'] };

beforeEach(() => begin({ '/formats': OFFERS, '/shown': SHOWN, '/artifacts': [] }));
afterEach(() => {
  cleanup();
  useStudio.setState({ jobs: {} });
});

async function show() {
  render(
    <QueryClientProvider client={new QueryClient()}>
      <Make project="p" run={{ id: 'r' } as RunSummary} />
    </QueryClientProvider>,
  );
  await screen.findByRole('radio', { name: 'Film' });
}

const choose = (name: string | RegExp) => fireEvent.click(screen.getByRole('radio', { name }));
const make = () => fireEvent.click(screen.getByRole('button', { name: 'Make file' }));
const hear = (job: Partial<Job>) =>
  act(() =>
    useStudio.getState().hear(
      [],
      [
        {
          id: 'job1',
          project: 'p',
          asked: { verb: 'export', run: 'r' },
          seq: 1,
          seconds_left: null,
          ...job,
        } as Job,
      ],
      false,
    ),
  );

test('one press makes the recommended file', async () => {
  await show();
  expect(screen.getByRole('radio', { name: 'PLY, recommended' })).toHaveProperty('checked', true);
  make();
  await waitFor(() => expect(server.asked).toHaveLength(1));
  expect(server.asked).toEqual([{ verb: 'export', run: 'r', form: 'ply', kind: 'splats' }]);
});

test('a purpose fills the settings and says so, until one is changed', async () => {
  await show();
  choose('Mesh with texture');
  choose('Game');
  const faces = screen.getByLabelText('Triangles');
  expect(faces).toHaveProperty('value', '15000');
  const mark = screen.getByText('For game');
  expect(faces.getAttribute('aria-describedby')).toContain(mark.id);
  fireEvent.change(faces, { target: { value: '9000' } });
  expect(screen.queryByText('For game')).toBeNull();
  make();
  await waitFor(() => expect(server.asked).toHaveLength(1));
  expect(server.asked[0]).toMatchObject({ kind: 'mesh', preset: 'game', settings: { faces: 9000 } });
});

test('what is for a printer is made for one, without a question', async () => {
  await show();
  choose('Mesh with texture');
  choose('STL');
  expect(screen.queryByRole('radio', { name: 'Game' })).toBeNull();
  expect(screen.getByLabelText('Watertight')).toHaveProperty('checked', true);
});

test('another form begins anew', async () => {
  await show();
  choose('Mesh with texture');
  fireEvent.change(screen.getByLabelText('Triangles'), { target: { value: '5' } });
  choose('PLY');
  expect(screen.getByLabelText('Triangles')).toHaveProperty('value', '30000');
});

test('what is out of range is said at its field, and not sent', async () => {
  await show();
  choose('Mesh with texture');
  fireEvent.change(screen.getByLabelText('Triangles'), { target: { value: '-3' } });
  make();
  const fault = screen.getByText('Must be at least 0');
  expect(screen.getByLabelText('Triangles').getAttribute('aria-describedby')).toContain(fault.id);
  expect(fault.closest('details')).toHaveProperty('open', true);
  await Promise.resolve();
  expect(server.asked).toEqual([]);
});

test('a refusal of the server stands at its field, or beside the button', async () => {
  await show();
  choose('Mesh with texture');
  const refusal = (field: string) => ({
    title: 'Invalid request',
    status: 422,
    errors: [{ where: 'body', path: `$.${field}`, detail: 'must be even' }],
  });
  server.refuse = refusal('settings.faces');
  make();
  const words = await screen.findByText('Must be even');
  expect(screen.getByLabelText('Triangles').getAttribute('aria-describedby')).toContain(words.id);
  expect(screen.queryByRole('alert')).toBeNull();
  server.refuse = refusal('settings.unheard_of');
  make();
  expect((await screen.findByRole('alert')).textContent).toBe('Must be even');
});

test('a method without gaussians offers no splats', async () => {
  begin({ '/formats': OFFERS, '/shown': { parts: [] } });
  await show();
  expect(screen.queryByRole('radio', { name: 'Splats' })).toBeNull();
  make();
  await waitFor(() => expect(server.asked).toHaveLength(1));
  expect(server.asked[0]).toMatchObject({ form: 'glb', kind: 'mesh' });
});

test('what was asked for before is still told of, and what came of it', async () => {
  begin({
    '/formats': OFFERS,
    '/shown': SHOWN,
    '/jobs/job1/artifacts': [{ id: 'a', name: 'scene.glb', bytes: 2_500_000 }],
  });
  await show();
  const making = () => within(screen.getByTestId('making'));
  hear({ state: 'running', stage: 'look', done: 3, total: 6 });
  expect(making().getByText(/Looking at the scene/)).toBeTruthy();
  expect(making().getByRole('progressbar').getAttribute('aria-valuenow')).toBe('50');
  const bounds = [
    [0, 0, 0],
    [2, 1, 3],
  ];
  const report = { holds: 'triangles', count: 2, bounds, read_back: true, up: '+z', metres_per_unit: null };
  hear({ state: 'succeeded', seq: 2, result: report });
  expect(making().getByText(/2 triangles, 2 × 1 × 3 units/)).toBeTruthy();
  expect(
    making()
      .getByRole('link', { name: /Measure/ })
      .getAttribute('href'),
  ).toBe('/projects/p/view?run=r');
  const file = await making().findByRole('link', { name: 'Download scene.glb (2.5 MB)' });
  expect(file.getAttribute('href')).toBe('/api/v1/artifacts/a');
});
