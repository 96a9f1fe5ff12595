// The events of a job.

import { useEffect, useRef, useState } from 'react';

import { http, type Job, unwrap } from '../api/client';
import type { JobEvent } from '../api/previews';
import { isActive } from './store';

const EVENTS_PER_PAGE = 5000; // events in one response
const POLL_MS = 700; // between polls

/** All events of a job, oldest first; grows while the job runs. */
export function useJobEvents(job: Job | undefined): JobEvent[] {
  const [events, setEvents] = useState<JobEvent[]>([]);
  const fetched = useRef({ id: '', count: 0 });
  const id = job?.id;
  const active = job !== undefined && isActive(job);

  useEffect(() => {
    if (!id) return;
    let cancelled = false;
    let timer: ReturnType<typeof setTimeout>;
    if (fetched.current.id !== id) {
      fetched.current = { id, count: 0 };
      setEvents([]);
    }
    const poll = async () => {
      let isFull = false;
      try {
        const query = { after: fetched.current.count, limit: EVENTS_PER_PAGE };
        const page = (await unwrap(
          http.GET('/api/v1/jobs/{job}/events', { params: { path: { job: id }, query } }),
        )) as JobEvent[]; // openapi-fetch turns tuples into lists
        if (cancelled) return;
        isFull = page.length === EVENTS_PER_PAGE;
        if (page.length) {
          fetched.current.count += page.length;
          setEvents((before) => [...before, ...page]);
        }
      } catch {
        // The server is unreachable; the event socket reports it. Polling continues.
      }
      if (!cancelled && isFull) void poll();
      else if (!cancelled && active) timer = setTimeout(() => void poll(), POLL_MS);
    };
    void poll();
    return () => {
      cancelled = true;
      clearTimeout(timer);
    };
  }, [id, active]);
  return events;
}
