import { expect, test } from 'vitest';

import { buildVideoRequest, frames, INITIAL_VIDEO } from './videoFormState';

test('buildVideoRequest: computes the frames from seconds and rate', () => {
  const video = { path: 'spiral', size: '1280x720', seconds: '2.5', fps: '24' } as const;
  expect(buildVideoRequest(video, 'r').request).toEqual({
    verb: 'render',
    run: 'r',
    path: 'spiral',
    size: [1280, 720],
    frames: 60,
    fps: 24,
  });
  expect(buildVideoRequest(INITIAL_VIDEO, 'r').request).not.toHaveProperty('size');
});

test('frameCount: reports errors by field', () => {
  expect(frames({ ...INITIAL_VIDEO, seconds: '' })).toEqual({
    field: 'seconds',
    error: 'Must be more than 0',
  });
  expect(frames({ ...INITIAL_VIDEO, fps: '0' })).toHaveProperty('field', 'fps');
  expect(buildVideoRequest({ ...INITIAL_VIDEO, seconds: 'x' }, 'r')).toEqual({
    request: null,
    errors: { seconds: 'Must be more than 0' },
  });
});
