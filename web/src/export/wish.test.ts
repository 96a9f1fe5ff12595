import { expect, test } from 'vitest';

import { FILM, frames, NEW, request } from './wish';

test('a file is asked for by its form', () => {
  expect(request({ ...NEW, form: 'spz', points: true }, 'r')).toEqual({
    verb: 'export',
    run: 'r',
    form: 'spz',
  });
  expect(request({ ...NEW, points: true }, 'r')).toEqual({
    verb: 'export',
    run: 'r',
    form: 'ply',
    points: true,
  });
});

test('a film has as many pictures as its seconds need', () => {
  expect(
    request({ ...NEW, form: FILM, path: 'spiral', size: '1280x720', seconds: '2.5', fps: '24' }, 'r'),
  ).toEqual({
    verb: 'render',
    run: 'r',
    path: 'spiral',
    size: [1280, 720],
    frames: 60,
    fps: 24,
  });
  expect(request({ ...NEW, form: FILM }, 'r')).not.toHaveProperty('size');
});

test('what cannot be is named', () => {
  expect(frames({ ...NEW, seconds: '' })).toEqual({ field: 'seconds', fault: 'Must be more than 0' });
  expect(frames({ ...NEW, fps: '0' })).toHaveProperty('field', 'fps');
  expect(request({ ...NEW, form: FILM, seconds: 'x' }, 'r')).toBeNull();
});
