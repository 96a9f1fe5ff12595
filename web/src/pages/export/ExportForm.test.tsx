import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { act, cleanup, fireEvent, render, screen, waitFor, within } from '@testing-library/react';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { begin, server } from '../../api/fakeServer';
import type { Job } from '../../api/client';
import type { RunSummary } from '../../api/previews';
import { useStore } from '../../state/store';
import { FORMATS } from './formatFixtures';
import { ExportForm } from './ExportForm';

const SHOWN = { parts: ['0.spz'] };

beforeEach(() => begin({ '/formats': FORMATS, '/shown': SHOWN, '/artifacts': [] }));
afterEach(() => {
  cleanup();
  useStore.setState({ jobs: {} });
});

async function show() {
  render(
    <QueryClientProvider client={new QueryClient()}>
      <ExportForm project="p" run={{ id: 'r' } as RunSummary} />
    </QueryClientProvider>,
  );
  await screen.findByRole('radio', { name: 'Video' });
}

const choose = (name: string | RegExp) => fireEvent.click(screen.getByRole('radio', { name }));
const make = () => fireEvent.click(screen.getByRole('button', { name: 'Export file' }));
const updateJob = (job: Partial<Job>) =>
  act(() =>
    useStore.getState().update(
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

test('submits the recommended format', async () => {
  await show();
  expect(screen.getByRole('radio', { name: 'PLY, recommended' })).toHaveProperty('checked', true);
  make();
  await waitFor(() => expect(server.asked).toHaveLength(1));
  expect(server.asked).toEqual([{ verb: 'export', run: 'r', form: 'ply', kind: 'splats' }]);
});

test('a purpose sets defaults and marks them until they are changed', async () => {
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

test('a print format has no choice of purpose', async () => {
  await show();
  choose('Mesh with texture');
  choose('STL');
  expect(screen.queryByRole('radio', { name: 'Game' })).toBeNull();
  expect(screen.getByLabelText('Watertight')).toHaveProperty('checked', true);
});

test('another format resets the settings', async () => {
  await show();
  choose('Mesh with texture');
  fireEvent.change(screen.getByLabelText('Triangles'), { target: { value: '5' } });
  choose('PLY');
  expect(screen.getByLabelText('Triangles')).toHaveProperty('value', '30000');
});

test('a value out of range shows an error and is not sent', async () => {
  await show();
  choose('Mesh with texture');
  fireEvent.change(screen.getByLabelText('Triangles'), { target: { value: '-3' } });
  make();
  const error = screen.getByText('Must be at least 0');
  expect(screen.getByLabelText('Triangles').getAttribute('aria-describedby')).toContain(error.id);
  expect(error.closest('details')).toHaveProperty('open', true);
  await Promise.resolve();
  expect(server.asked).toEqual([]);
});

test('a server error is shown at its field, or next to the button', async () => {
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
  begin({ '/formats': FORMATS, '/shown': { parts: [] } });
  await show();
  expect(screen.queryByRole('radio', { name: 'Splats' })).toBeNull();
  make();
  await waitFor(() => expect(server.asked).toHaveLength(1));
  expect(server.asked[0]).toMatchObject({ form: 'glb', kind: 'mesh' });
});

test('shows the running export after a reload, and its result', async () => {
  begin({
    '/formats': FORMATS,
    '/shown': SHOWN,
    '/jobs/job1/artifacts': [{ id: 'a', name: 'scene.glb', bytes: 2_500_000 }],
  });
  await show();
  const making = () => within(screen.getByTestId('export-progress'));
  updateJob({ state: 'running', stage: 'look', done: 3, total: 6 });
  expect(making().getByText(/Rendering depth/)).toBeTruthy();
  expect(making().getByRole('progressbar').getAttribute('aria-valuenow')).toBe('50');
  const bounds = [
    [0, 0, 0],
    [2, 1, 3],
  ];
  const report = { holds: 'triangles', count: 2, bounds, read_back: true, up: '+z', metres_per_unit: null };
  updateJob({ state: 'succeeded', seq: 2, result: report });
  expect(making().getByText(/2 triangles, 2 × 1 × 3 units/)).toBeTruthy();
  expect(
    making()
      .getByRole('link', { name: /Measure/ })
      .getAttribute('href'),
  ).toBe('/projects/p/view?run=r');
  const file = await making().findByRole('link', { name: 'Download scene.glb (2.5 MB)' });
  expect(file.getAttribute('href')).toBe('/api/v1/artifacts/a');
});
