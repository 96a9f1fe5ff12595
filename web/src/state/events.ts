// The socket of news: everything that is, then everything that changes, into the store. It comes back by itself.

import { useStudio } from './store';
import { API, type Job, type Project } from '../api/client';

interface News {
  kind: 'snapshot' | 'change';
  seq: number;
  projects: Project[];
  jobs: Job[];
}

const FIRST_WAIT = 500; // ms before trying again, doubling
const LONGEST_WAIT = 8000;

export function listen(): void {
  let wait = FIRST_WAIT;
  let seq: number | null = null;

  const connect = () => {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const since = seq === null ? '' : `?since=${seq}`;
    const socket = new WebSocket(`${scheme}://${location.host}${API}/events${since}`);
    socket.onmessage = (message) => {
      const news = JSON.parse(String(message.data)) as News;
      seq = news.seq;
      wait = FIRST_WAIT;
      useStudio.getState().hear(news.projects, news.jobs, news.kind === 'snapshot');
    };
    socket.onclose = () => {
      useStudio.getState().lose();
      setTimeout(connect, wait);
      wait = Math.min(LONGEST_WAIT, 2 * wait);
    };
  };
  connect();
}
