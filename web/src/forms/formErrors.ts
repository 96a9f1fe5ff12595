// Errors of the server, by form field.

import { ApiError } from '../api/client';
import { errorMessage } from '../lib/errors';

/** An error of the server; `field` is null if it concerns no single field. */
export interface FormError {
  field: string | null;
  message: string;
}

export function formErrorOf(error: unknown): FormError {
  if (!(error instanceof ApiError) || !error.field) return { field: null, message: errorMessage(error) };
  const message = error.detail.replace(/^\$?[\w.[\]]+: /, '');
  return {
    field: error.field.replace(/^train\./, '').replace(/\[\d+\]$/, ''),
    message: message.charAt(0).toUpperCase() + message.slice(1),
  };
}
