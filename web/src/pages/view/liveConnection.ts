// The client of lumigraph/wire/live.py: sends commands, receives rendered frames.

import { API } from '../../api/client';
import type { Vector } from '../../geometry/vector';
import type { View } from '../../geometry/camera';

export type Output = 'rgb' | 'depth' | 'normal';

export interface Hello {
  kind: 'hello';
  method: string;
  box?: [Vector, Vector];
  camera: View;
  size: [number, number];
  output: Output;
}

export interface LiveError {
  kind: 'error';
  id?: string;
  code: string;
  message: string;
}

export interface FrameHeader {
  kind: 'frame';
  frame: number; // 0 for a single requested frame, which needs no ack
  width: number;
  height: number;
  sharp: boolean;
  output: Output;
  camera: View;
  seq?: number;
  render_ms: number;
}

type Reply = Hello | LiveError | { kind: 'done' };
const MAX_HEADER_BYTES = 64_000;

/** The header and the JPEG of a binary message. */
export function parseFrame(message: ArrayBuffer): [FrameHeader, Uint8Array<ArrayBuffer>] {
  if (message.byteLength < 4) throw new Error('frame without a header');
  const length = new DataView(message).getUint32(0, true);
  if (length > Math.min(MAX_HEADER_BYTES, message.byteLength - 4))
    throw new Error('header longer than its frame');
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(message, 4, length))) as FrameHeader;
  return [header, new Uint8Array(message, 4 + length)];
}

export const liveAddress = (
  project: string,
  run: string,
  at: Pick<Location, 'protocol' | 'host'> = location,
) => `${at.protocol === 'https:' ? 'wss' : 'ws'}://${at.host}${API}/projects/${project}/runs/${run}/live`;

export interface Listener {
  frame: (header: FrameHeader, jpeg: Uint8Array<ArrayBuffer>) => Promise<void>; // resolves after drawing
  words: (text: string | null) => void; // an error or progress message, null once resolved
}

const FIRST_WAIT = 500; // ms before trying again, doubling
const LONGEST_WAIT = 8000;

/** A connection that reconnects by itself and then repeats the last settings. */
export class LiveConnection {
  private socket: WebSocket | null = null;
  private view: View | null = null;
  private wanted: { size?: [number, number]; output?: Output } = {};
  private unsent = false;
  private beat = 0;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private wait = FIRST_WAIT;
  private closed = false;
  private complained = false;

  constructor(
    private readonly address: string,
    private readonly listener: Listener,
  ) {
    this.connect();
  }

  /** Moves the server's camera. Several moves within one display frame are sent as one. */
  move(view: View): void {
    this.view = view;
    this.unsent = true;
    this.beat ||= requestAnimationFrame(this.flush);
  }

  set(wanted: { size?: [number, number]; output?: Output }): void {
    this.wanted = { ...this.wanted, ...wanted };
    this.send({ kind: 'set', ...wanted });
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.retry);
    cancelAnimationFrame(this.beat);
    this.socket?.close();
  }

  private connect(): void {
    const socket = (this.socket = new WebSocket(this.address));
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      this.complained = false;
      if (this.wanted.size || this.wanted.output) this.send({ kind: 'set', ...this.wanted });
      this.unsent = this.view !== null;
      this.flush();
    };
    socket.onmessage = (message: MessageEvent<string | ArrayBuffer>) => {
      if (typeof message.data === 'string') this.hear(JSON.parse(message.data) as Reply);
      else this.draw(message.data);
    };
    socket.onclose = () => this.again();
  }

  private readonly flush = (): void => {
    this.beat = 0;
    if (!this.unsent || !this.view) return;
    this.unsent = !this.send({ kind: 'move', ...this.view });
  };

  private send(command: object): boolean {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(command));
    return true;
  }

  private hear(reply: Reply): void {
    if (reply.kind !== 'error') {
      if (reply.kind === 'hello') this.wait = FIRST_WAIT;
      return;
    }
    if (reply.code === 'superseded') return;
    this.complained = true;
    this.listener.words(describeError(reply));
  }

  private draw(message: ArrayBuffer): void {
    const socket = this.socket;
    const [header, jpeg] = parseFrame(message);
    this.listener
      .frame(header, jpeg)
      .then(() => this.listener.words(null))
      .catch(() => this.listener.words('A frame cannot be decoded. Waiting for the next one.'))
      .finally(() => {
        if (header.frame > 0 && socket === this.socket) this.send({ kind: 'ack', frame: header.frame });
      });
  }

  private again(): void {
    if (this.closed) return;
    if (!this.complained) this.listener.words('Connection to the renderer lost. Reconnecting …');
    this.retry = setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(LONGEST_WAIT, 2 * this.wait);
  }
}

const WORDS: Record<string, string> = {
  no_scene: 'Nothing to render yet. The image appears with the first checkpoint.',
  busy: 'The server has no free renderer. Close another view or wait.',
  ended: 'The renderer stopped. Restarting …',
};

export const describeError = (error: Pick<LiveError, 'code' | 'message'>): string =>
  WORDS[error.code] ?? `Cannot render: ${error.message}.`;

/** The render size in pixels of an area on the page, with at most `most` on the longer side. */
export function renderSize(width: number, height: number, most = 1280): [number, number] {
  const scale = Math.min(1, most / Math.max(width, height, 1));
  const side = (value: number) => Math.max(16, Math.round(value * scale));
  return [side(width), side(height)];
}
