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
  status: (text: string | null) => void; // an error or progress message, null once resolved
}

const FIRST_RECONNECT_DELAY_MS = 500; // doubles after each attempt
const MAX_RECONNECT_DELAY_MS = 8000;

/** A connection that reconnects by itself and then repeats the last settings. */
export class LiveConnection {
  private socket: WebSocket | null = null;
  private view: View | null = null;
  private settings: { size?: [number, number]; output?: Output } = {};
  private unsent = false;
  private frameRequest = 0;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private reconnectDelayMs = FIRST_RECONNECT_DELAY_MS;
  private closed = false;
  private showsError = false;

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
    this.frameRequest ||= requestAnimationFrame(this.flush);
  }

  set(settings: { size?: [number, number]; output?: Output }): void {
    this.settings = { ...this.settings, ...settings };
    this.send({ kind: 'set', ...settings });
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.retry);
    cancelAnimationFrame(this.frameRequest);
    this.socket?.close();
  }

  private connect(): void {
    const socket = (this.socket = new WebSocket(this.address));
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      this.showsError = false;
      if (this.settings.size || this.settings.output) this.send({ kind: 'set', ...this.settings });
      this.unsent = this.view !== null;
      this.flush();
    };
    socket.onmessage = (message: MessageEvent<string | ArrayBuffer>) => {
      if (typeof message.data === 'string') this.handleReply(JSON.parse(message.data) as Reply);
      else this.draw(message.data);
    };
    socket.onclose = () => this.reconnect();
  }

  private readonly flush = (): void => {
    this.frameRequest = 0;
    if (!this.unsent || !this.view) return;
    this.unsent = !this.send({ kind: 'move', ...this.view });
  };

  private send(command: object): boolean {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(command));
    return true;
  }

  private handleReply(reply: Reply): void {
    if (reply.kind !== 'error') {
      if (reply.kind === 'hello') this.reconnectDelayMs = FIRST_RECONNECT_DELAY_MS;
      return;
    }
    if (reply.code === 'superseded') return;
    this.showsError = true;
    this.listener.status(describeError(reply));
  }

  private draw(message: ArrayBuffer): void {
    const socket = this.socket;
    const [header, jpeg] = parseFrame(message);
    this.listener
      .frame(header, jpeg)
      .then(() => this.listener.status(null))
      .catch(() => this.listener.status('A frame cannot be decoded. Waiting for the next one.'))
      .finally(() => {
        if (header.frame > 0 && socket === this.socket) this.send({ kind: 'ack', frame: header.frame });
      });
  }

  private reconnect(): void {
    if (this.closed) return;
    if (!this.showsError) this.listener.status('Connection to the renderer lost. Reconnecting …');
    this.retry = setTimeout(() => this.connect(), this.reconnectDelayMs);
    this.reconnectDelayMs = Math.min(MAX_RECONNECT_DELAY_MS, 2 * this.reconnectDelayMs);
  }
}

const ERROR_TEXTS: Record<string, string> = {
  no_scene: 'Nothing to render yet. The image appears with the first checkpoint.',
  busy: 'The server has no free renderer. Close another view or wait.',
  ended: 'The renderer stopped. Restarting …',
};

export const describeError = (error: Pick<LiveError, 'code' | 'message'>): string =>
  ERROR_TEXTS[error.code] ?? `Cannot render: ${error.message}.`;

/** The render size in pixels of an area on the page, with at most `maxSide` on the longer side. */
export function renderSize(width: number, height: number, maxSide = 1280): [number, number] {
  const scale = Math.min(1, maxSide / Math.max(width, height, 1));
  const side = (value: number) => Math.max(16, Math.round(value * scale));
  return [side(width), side(height)];
}
