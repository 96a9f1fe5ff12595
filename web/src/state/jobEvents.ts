// The events of a job.

import { useEffect, useRef, useState } from 'react';

import { http, type Job, told } from '../api/client';
import type { JobEvent } from '../api/previews';
import { atWork } from './store';

const PAGE = 5000; // events in one answer
const EVERY = 700; // ms between looks at what happened

/** All that happened in a job, oldest first, growing while it runs. */
export function useJobEvents(job: Job | undefined): JobEvent[] {
  const [events, setEvents] = useState<JobEvent[]>([]);
  const known = useRef({ id: '', count: 0 });
  const id = job?.id;
  const working = job !== undefined && atWork(job);

  useEffect(() => {
    if (!id) return;
    let stopped = false;
    let timer: ReturnType<typeof setTimeout>;
    if (known.current.id !== id) {
      known.current = { id, count: 0 };
      setEvents([]);
    }
    const more = async () => {
      let full = false;
      try {
        const query = { after: known.current.count, limit: PAGE };
        const found = (await told(
          http.GET('/api/v1/jobs/{job}/events', { params: { path: { job: id }, query } }),
        )) as JobEvent[]; // tuples lose their lengths on the way
        if (stopped) return;
        full = found.length === PAGE;
        if (found.length) {
          known.current.count += found.length;
          setEvents((before) => [...before, ...found]);
        }
      } catch {
        // The server is away; the socket says so, and this goes on when it is back.
      }
      if (!stopped && full) void more();
      else if (!stopped && working) timer = setTimeout(() => void more(), EVERY);
    };
    void more();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [id, working]);
  return events;
}
