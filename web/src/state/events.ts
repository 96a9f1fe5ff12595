// The event socket: a snapshot, then changes, into the store. It reconnects by itself.

import { useStore } from './store';
import { API, type Job, type Project } from '../api/client';

interface EventMessage {
  kind: 'snapshot' | 'change';
  seq: number;
  projects: Project[];
  jobs: Job[];
}

const FIRST_RETRY_MS = 500; // doubles at each attempt
const MAX_RETRY_MS = 8000;

export function connectEvents(): void {
  let retryMs = FIRST_RETRY_MS;
  let seq: number | null = null;

  const connect = () => {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const since = seq === null ? '' : `?since=${seq}`;
    const socket = new WebSocket(`${scheme}://${location.host}${API}/events${since}`);
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(String(data)) as EventMessage;
      seq = message.seq;
      retryMs = FIRST_RETRY_MS;
      useStore.getState().update(message.projects, message.jobs, message.kind === 'snapshot');
    };
    socket.onclose = () => {
      useStore.getState().disconnect();
      setTimeout(connect, retryMs);
      retryMs = Math.min(MAX_RETRY_MS, 2 * retryMs);
    };
  };
  connect();
}
