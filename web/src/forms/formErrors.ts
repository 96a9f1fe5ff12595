// What the server refused, at the field that it is about.

import { Refusal } from '../api/client';
import { sentence } from '../lib/errors';

/** Which field of the form was refused, and why; a field of null where it is none of them. */
export interface Refused {
  field: string | null;
  why: string;
}

export function refusedBy(error: unknown): Refused {
  if (!(error instanceof Refusal) || !error.field) return { field: null, why: sentence(error) };
  const why = error.detail.replace(/^\$?[\w.[\]]+: /, '');
  return {
    field: error.field.replace(/^train\./, '').replace(/\[\d+\]$/, ''),
    why: why.charAt(0).toUpperCase() + why.slice(1),
  };
}
