// Names that nobody else has.

/** As random as needed to tell things apart, also where a page came by plain HTTP and has no `randomUUID`. */
export const newId = (): string =>
  [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
