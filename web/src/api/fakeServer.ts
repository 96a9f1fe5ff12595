// For tests: a server that answers by address and keeps what it is asked to do. The typed requests keep the `fetch`
// that was there when they were made, so this is imported before anything that makes some.

interface Problem {
  status: number;
  title: string;
}

export const server = {
  answers: {} as Record<string, unknown>, // to GET, by what the path ends with
  asked: [] as unknown[], // by POST
  refuse: null as Problem | null,
};

/** Forget what was; answer so. */
export function begin(answers: Record<string, unknown>): void {
  Object.assign(server, { answers, asked: [], refuse: null });
}

const Plain = globalThis.Request;
globalThis.Request = class extends Plain {
  constructor(input: RequestInfo | URL, init?: RequestInit) {
    super(typeof input === 'string' ? new URL(input, 'http://studio.test') : input, init);
  }
};

globalThis.fetch = async (input) => {
  if (!(input instanceof Plain)) throw new Error('a typed request was expected');
  if (input.method === 'GET') {
    const { pathname } = new URL(input.url);
    const known = Object.keys(server.answers).find((end) => pathname.endsWith(end));
    return known === undefined ? new Response(null, { status: 404 }) : Response.json(server.answers[known]);
  }
  const { refuse } = server;
  if (refuse) return Response.json(refuse, { status: refuse.status });
  server.asked.push(await input.json());
  return Response.json({ id: `job${server.asked.length}` }, { status: 202 });
};
