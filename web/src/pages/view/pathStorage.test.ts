import { afterEach, expect, it, vi } from 'vitest';

import { savePath, MAX_THUMBNAIL_CHARACTERS, MAX_STORED_CHARACTERS, readPath } from './pathStorage';
import type { KeyFrame } from '../../geometry/cameraPath';

const jpeg = (length: number, of = 'A') => 'data:image/jpeg;base64,'.padEnd(length, of);
const frame = (id: string, picture: string | null): KeyFrame => ({
  id,
  seconds: 2,
  view: { position: [1, 2, 3], look_at: [0, 0, 0], up: [0, 0, 1], fov: 50 },
  picture,
});
const stored = () =>
  Object.entries(localStorage).reduce((sum, [key, value]) => sum + key.length + String(value).length, 0);

afterEach(() => {
  vi.restoreAllMocks();
  localStorage.clear();
});

it('savePath: keeps key frames with and without thumbnails', () => {
  const keys = [frame('a', jpeg(3000)), frame('b', null)];
  savePath('run', keys);
  expect(readPath('run')).toEqual(keys);
  expect(readPath('another')).toEqual([]);
});

it('readPath: reads key frames of older versions without thumbnails', () => {
  const old: Partial<KeyFrame> = frame('a', null);
  delete old.picture;
  localStorage.setItem('lumigraph.path.run', JSON.stringify([old]));
  expect(readPath('run')).toEqual([frame('a', null)]);
});

it('savePath: bounds the storage and drops the oldest thumbnails only', () => {
  for (let run = 0; run < 20; run++) {
    savePath(
      `run ${run}`,
      Array.from({ length: 40 }, (_, k) => frame(`${run}.${k}`, jpeg(4000))),
    );
  }
  expect(stored()).toBeLessThan(MAX_STORED_CHARACTERS + 20 * 40 * 200);
  expect(stored()).toBeGreaterThan(0.9 * MAX_STORED_CHARACTERS);
  expect(readPath('run 19').every((key) => key.picture?.length === 4000)).toBe(true);
  expect(readPath('run 0').map((key) => key.picture)).toEqual(Array(40).fill(null));
  const many = Array.from({ length: 400 }, (_, k) => frame(`${k}`, jpeg(4000)));
  savePath('long', many);
  expect(readPath('long')).toHaveLength(400);
  expect(readPath('long').at(-1)?.picture).toHaveLength(4000);
  expect(readPath('long')[0]?.picture).toBeNull();
});

it('savePath: drops oversized thumbnails and those of removed frames', () => {
  savePath('run', [frame('a', jpeg(MAX_THUMBNAIL_CHARACTERS + 1)), frame('b', jpeg(100))]);
  expect(readPath('run').map((key) => key.picture?.length)).toEqual([undefined, 100]);
  savePath('run', []);
  expect(localStorage.getItem('lumigraph.path-pictures')).toBe('[]');
});

it('savePath: drops thumbnails before the path if storage is full, without an error', () => {
  savePath('one', [frame('a', jpeg(3000))]);
  const write = Storage.prototype.setItem;
  vi.spyOn(Storage.prototype, 'setItem').mockImplementation(function (this: Storage, key, value) {
    const before = this.getItem(key)?.length ?? 0;
    if (stored() - before + key.length + value.length > 3200)
      throw new DOMException('full', 'QuotaExceededError');
    write.call(this, key, value);
  });
  savePath('two', [frame('b', jpeg(3000)), frame('c', null)]);
  expect(readPath('two').map((key) => key.id)).toEqual(['b', 'c']);
  vi.spyOn(Storage.prototype, 'setItem').mockImplementation(() => {
    throw new DOMException('forbidden', 'SecurityError');
  });
  expect(() => savePath('three', [frame('d', null)])).not.toThrow();
});

it.each(['{', '"x"', '[null, 3, {"picture": 4}, {"id": "a"}]', '{"a": 1}'])(
  'readPath: ignores %s in the storage',
  (text) => {
    localStorage.setItem('lumigraph.path.run', text);
    localStorage.setItem('lumigraph.path-pictures', text);
    expect(readPath('run')).toEqual([]);
  },
);

it('readPath: ignores thumbnails that are no data: URL', () => {
  savePath('run', [frame('a', null)]);
  const kept = [{ run: 'run', id: 'a', picture: 'https://example.org/spy.jpg' }];
  localStorage.setItem('lumigraph.path-pictures', JSON.stringify(kept));
  expect(readPath('run')[0]?.picture).toBeNull();
});
