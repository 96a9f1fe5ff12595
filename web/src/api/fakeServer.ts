// For tests: a fake server that answers by path and records POST bodies. The typed client keeps the `fetch` of its
// creation, so import this module before any module that imports the client.

interface Problem {
  status: number;
  title: string;
}

export const server = {
  answers: {} as Record<string, unknown>, // of GET, by the end of the path
  asked: [] as unknown[], // bodies of POST
  refuse: null as Problem | null,
};

/** Clears the record and sets the answers. */
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
