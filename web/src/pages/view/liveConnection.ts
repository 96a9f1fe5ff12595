// The other end of lumigraph/wire/live.py: commands go out, pictures that the server rendered come in.

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
  frame: number; // 0 for one that was asked for by itself, which needs no ack
  width: number;
  height: number;
  sharp: boolean;
  output: Output;
  camera: View;
  seq?: number;
  render_ms: number;
}

type Reply = Hello | LiveError | { kind: 'done' };
const LARGEST_HEADER = 64_000;

/** The header and the JPEG of a binary message. */
export function unpack(message: ArrayBuffer): [FrameHeader, Uint8Array<ArrayBuffer>] {
  if (message.byteLength < 4) throw new Error('a frame without a header');
  const length = new DataView(message).getUint32(0, true);
  if (length > Math.min(LARGEST_HEADER, message.byteLength - 4))
    throw new Error('a header longer than its frame');
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(message, 4, length))) as FrameHeader;
  return [header, new Uint8Array(message, 4 + length)];
}

export const liveAddress = (
  project: string,
  run: string,
  at: Pick<Location, 'protocol' | 'host'> = location,
) => `${at.protocol === 'https:' ? 'wss' : 'ws'}://${at.host}${API}/projects/${project}/runs/${run}/live`;

export interface Listener {
  frame: (header: FrameHeader, jpeg: Uint8Array<ArrayBuffer>) => Promise<void>; // done when it is drawn
  words: (text: string | null) => void; // what is wrong, or null when it is right again
}

const FIRST_WAIT = 500; // ms before trying again, doubling
const LONGEST_WAIT = 8000;

/** A connection that comes back by itself, and then says again what was wanted last. */
export class LiveLink {
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

  /** The camera stands here from now on; of many in one frame of the screen, the newest goes out. */
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
    this.listener.words(inWords(reply));
  }

  private draw(message: ArrayBuffer): void {
    const socket = this.socket;
    const [header, jpeg] = unpack(message);
    this.listener
      .frame(header, jpeg)
      .then(() => this.listener.words(null))
      .catch(() => this.listener.words('A picture came that cannot be read. The next one may be better.'))
      .finally(() => {
        if (header.frame > 0 && socket === this.socket) this.send({ kind: 'ack', frame: header.frame });
      });
  }

  private again(): void {
    if (this.closed) return;
    if (!this.complained) this.listener.words('The connection to the renderer was lost. Trying again …');
    this.retry = setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(LONGEST_WAIT, 2 * this.wait);
  }
}

const WORDS: Record<string, string> = {
  no_scene: 'There is nothing to render yet. The picture comes with the first saved state of the training.',
  busy: 'The server is already rendering as many scenes as it can. Close another view, or wait a moment.',
  ended: 'The renderer has stopped. Starting another one …',
};

export const inWords = (error: Pick<LiveError, 'code' | 'message'>): string =>
  WORDS[error.code] ?? `The server cannot render this: ${error.message}.`;

/** The size in pixels to ask for, of an area on the page: not more than `most` on the longer side. */
export function pictureSize(width: number, height: number, most = 1280): [number, number] {
  const scale = Math.min(1, most / Math.max(width, height, 1));
  const side = (value: number) => Math.max(16, Math.round(value * scale));
  return [side(width), side(height)];
}
