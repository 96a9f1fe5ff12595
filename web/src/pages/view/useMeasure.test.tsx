import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { act, renderHook, waitFor } from '@testing-library/react';
import type { ReactNode } from 'react';
import { afterEach, expect, it } from 'vitest';

import { begin, server } from '../../api/fakeServer';
import { readScale } from './scaleStorage';
import { useMeasure } from './useMeasure';

const RUNS = [
  { id: 'old', created: 1 },
  { id: 'new', created: 2 },
];

afterEach(() => {
  history.replaceState(null, '', '/');
  localStorage.clear();
});

async function measure(length: number | null) {
  begin({ '/runs': RUNS });
  const client = new QueryClient();
  const wrapper = ({ children }: { children: ReactNode }) => (
    <QueryClientProvider client={client}>{children}</QueryClientProvider>
  );
  const { result } = renderHook(() => useMeasure('p'), { wrapper });
  await waitFor(() => expect(client.isFetching()).toBe(0));
  act(() => result.current.add([0, 0, 0]));
  act(() => result.current.add([0, 0, 4]));
  act(() => result.current.say(length));
  return result;
}

it('submits the scale of the run in the address', async () => {
  history.replaceState(null, '', '/projects/p/view?run=old');
  const result = await measure(2);
  expect(result.current.metres).toBe(0.5);
  await waitFor(() => expect(server.asked).toHaveLength(1));
  expect(server.asked[0]).toEqual({
    verb: 'scale',
    run: 'old',
    metres: 2,
    points: [
      [0, 0, 0],
      [0, 0, 4],
    ],
  });
});

it('uses the newest run without one in the address', async () => {
  await measure(2);
  await waitFor(() => expect(server.asked).toHaveLength(1));
  expect(server.asked[0]).toHaveProperty('run', 'new');
});

it('removes the scale in this browser only', async () => {
  await measure(null);
  expect(readScale('p')).toBeNull();
  await Promise.resolve();
  expect(server.asked).toEqual([]);
});
