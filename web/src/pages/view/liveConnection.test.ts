import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import type { View } from '../../geometry/camera';
import { describeError, liveAddress, LiveConnection, renderSize, parseFrame } from './liveConnection';

function pack(header: object, jpeg: number[]): ArrayBuffer {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const message = new Uint8Array(4 + text.length + jpeg.length);
  new DataView(message.buffer).setUint32(0, text.length, true);
  message.set(text, 4);
  message.set(jpeg, 4 + text.length);
  return message.buffer;
}

const view: View = { position: [0, 0, 1], look_at: [0, 0, 0], up: [0, 1, 0], fov: 50 };

describe('a frame', () => {
  it('consists of a header and a JPEG', () => {
    const [header, jpeg] = parseFrame(pack({ kind: 'frame', frame: 7, sharp: true }, [255, 216, 255]));
    expect(header.frame).toBe(7);
    expect([...jpeg]).toEqual([255, 216, 255]);
  });

  it('is rejected if its length is invalid', () => {
    expect(() => parseFrame(new ArrayBuffer(3))).toThrow();
    expect(() => parseFrame(new Uint8Array([255, 0, 0, 0, 1]).buffer)).toThrow();
  });
});

it('renderSize: is at most 1280 pixels and keeps the aspect ratio', () => {
  expect(renderSize(640, 480)).toEqual([640, 480]);
  expect(renderSize(2560, 1440)).toEqual([1280, 720]);
  expect(renderSize(0, 0)).toEqual([16, 16]);
});

it('liveAddress: is the WebSocket address of the page host', () => {
  const at = { protocol: 'https:', host: 'scan.example' };
  expect(liveAddress('p', 'r', at)).toBe('wss://scan.example/api/v1/projects/p/runs/r/live');
});

it('describeError: turns codes into sentences', () => {
  expect(describeError({ code: 'busy', message: '' })).toContain('no free renderer');
  expect(describeError({ code: 'render_failed', message: 'no room' })).toBe('Cannot render: no room.');
});

class Socket {
  static readonly OPEN = 1;
  static all: Socket[] = [];
  readyState = 0;
  sent: { kind: string; [more: string]: unknown }[] = [];
  binaryType = '';
  onopen: () => void = () => undefined;
  onclose: () => void = () => undefined;
  onmessage: (message: { data: unknown }) => void = () => undefined;
  constructor(readonly address: string) {
    Socket.all.push(this);
  }
  send(text: string) {
    this.sent.push(JSON.parse(text));
  }
  open() {
    this.readyState = 1;
    this.onopen();
  }
  close() {
    this.readyState = 3;
    this.onclose();
  }
  get kinds() {
    return this.sent.map((one) => one.kind).join(' ');
  }
}

describe('the link', () => {
  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal('WebSocket', Socket);
    Socket.all = [];
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });
  const listener = () => ({ frame: vi.fn(() => Promise.resolve()), status: vi.fn() });
  const last = () => Socket.all.at(-1) as Socket;

  it('sends the newest of several cameras once per display frame', async () => {
    const link = new LiveConnection('ws://here', listener());
    last().open();
    link.move(view);
    link.move({ ...view, fov: 60 });
    await vi.advanceTimersByTimeAsync(50);
    expect(last().kinds).toBe('move');
    expect(last().sent[0]?.fov).toBe(60);
  });

  it('acknowledges streamed frames after drawing, not requested ones', async () => {
    const failingListener = listener();
    new LiveConnection('ws://here', failingListener);
    last().open();
    last().onmessage({ data: pack({ kind: 'frame', frame: 3 }, [1]) });
    last().onmessage({ data: pack({ kind: 'frame', frame: 0 }, [1]) });
    await vi.advanceTimersByTimeAsync(0);
    expect(failingListener.frame).toHaveBeenCalledTimes(2);
    expect(last().sent).toEqual([{ kind: 'ack', frame: 3 }]);
  });

  it('acknowledges and reports frames that cannot be decoded', async () => {
    const failingListener = { frame: () => Promise.reject(new Error('torn')), status: vi.fn() };
    new LiveConnection('ws://here', failingListener);
    last().open();
    last().onmessage({ data: pack({ kind: 'frame', frame: 4 }, [1]) });
    await vi.advanceTimersByTimeAsync(0);
    expect(last().kinds).toBe('ack');
    expect(failingListener.status).toHaveBeenLastCalledWith(expect.stringContaining('cannot be decoded'));
  });

  it('reconnects and repeats the settings', async () => {
    const failingListener = listener();
    const link = new LiveConnection('ws://here', failingListener);
    last().open();
    link.set({ size: [320, 240] });
    link.set({ output: 'depth' });
    link.move(view);
    await vi.advanceTimersByTimeAsync(50);
    last().close();
    expect(failingListener.status).toHaveBeenLastCalledWith(expect.stringContaining('lost'));
    await vi.advanceTimersByTimeAsync(600);
    expect(Socket.all).toHaveLength(2);
    last().open();
    expect(last().sent[0]).toEqual({ kind: 'set', size: [320, 240], output: 'depth' });
    expect(last().sent[1]?.kind).toBe('move');
    link.close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(Socket.all).toHaveLength(2);
  });
});
