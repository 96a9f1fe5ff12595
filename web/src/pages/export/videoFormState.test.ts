import { expect, test } from 'vitest';

import { filmOf, frames, NEW_FILM } from './videoFormState';

test('a film has as many pictures as its seconds need', () => {
  const film = { path: 'spiral', size: '1280x720', seconds: '2.5', fps: '24' } as const;
  expect(filmOf(film, 'r').asked).toEqual({
    verb: 'render',
    run: 'r',
    path: 'spiral',
    size: [1280, 720],
    frames: 60,
    fps: 24,
  });
  expect(filmOf(NEW_FILM, 'r').asked).not.toHaveProperty('size');
});

test('what cannot be is named', () => {
  expect(frames({ ...NEW_FILM, seconds: '' })).toEqual({ field: 'seconds', fault: 'Must be more than 0' });
  expect(frames({ ...NEW_FILM, fps: '0' })).toHaveProperty('field', 'fps');
  expect(filmOf({ ...NEW_FILM, seconds: 'x' }, 'r')).toEqual({
    asked: null,
    faults: { seconds: 'Must be more than 0' },
  });
});
