// What stands in the form of the export room, and the request that it makes.

import type { Asked, Schema } from '../../api/client';
import { changes, type Entry, type Setting } from '../../forms/settingSchema';
import { type Film, filmOf, NEW_FILM } from './videoFormState';
import {
  type Form,
  formsOf,
  type Kind,
  type KindOffer,
  type Offer,
  type Purpose,
  purposesOf,
  type Want,
  wantsOf,
} from './exportFormats';

type ExportJob = Schema['ExportJob'];
export type Frame = NonNullable<ExportJob['frame']>;
export type Origin = NonNullable<ExportJob['origin']>;

/** null: what is recommended. */
export interface Wish {
  want: Want | null;
  form: string | null;
  kind: Kind | null;
  purpose: Purpose | null;
  entries: Record<string, Entry>; // settings that somebody touched
  frame: Frame;
  origin: Origin;
  film: Film;
}

export const NEW: Wish = {
  want: null,
  form: null,
  kind: null,
  purpose: null,
  entries: {},
  frame: 'auto',
  origin: 'auto',
  film: NEW_FILM,
};

/** What a wish comes to among the offers. */
export interface Chosen {
  wants: Want[];
  want: Want;
  forms: Form[];
  file: File | null; // null: a film, or nothing yet
}

export interface File {
  form: Form;
  kind: KindOffer;
  purposes: Purpose[]; // to choose from
  purpose: Purpose | null;
  settings: Setting[]; // their defaults are the values of the purpose
}

export function chosen(wish: Wish, offers: Offer[], flat: boolean): Chosen {
  const wants = wantsOf(offers, flat);
  const want = wants.find((one) => one === wish.want) ?? wants[0] ?? 'film';
  const forms = formsOf(want, offers, flat);
  const form = forms.find((one) => one.form === wish.form) ?? forms[0];
  const kind = form?.kinds.find((one) => one.kind === wish.kind) ?? form?.kinds[0];
  return { wants, want, forms, file: form && kind ? fileOf(wish, form, kind) : null };
}

function fileOf(wish: Wish, form: Form, kind: KindOffer): File {
  const offered = purposesOf(kind);
  const only = offered.find((one) => one === form.purpose);
  const purpose = only ?? offered.find((one) => one === wish.purpose) ?? null;
  const values = purpose ? (kind.presets[purpose] ?? {}) : {};
  const settings = kind.settings.map((one) =>
    one.name in values ? { ...one, default: values[one.name] ?? null } : one,
  );
  return { form, kind, purposes: only ? [] : offered, purpose, settings };
}

/** Whether a value of a setting is from the purpose. */
export const ofPurpose = ({ kind, purpose }: File, setting: string): boolean =>
  purpose !== null && setting in (kind.presets[purpose] ?? {});

/** The request; null while something is wrong in the form. Faults go by field, as the server names them. */
export function request(
  wish: Wish,
  { file }: Chosen,
  run: string,
): { asked: Asked | null; faults: Record<string, string> } {
  if (!file) return filmOf(wish.film, run);
  const faults: Record<string, string> = {};
  const changed = changes(file.settings, wish.entries);
  for (const [name, fault] of Object.entries(changed.faults)) faults[`settings.${name}`] = fault;
  const asked: ExportJob = { verb: 'export', run, form: file.form.form, kind: file.kind.kind };
  if (file.purpose) asked.preset = file.purpose;
  if (Object.keys(changed.values).length) asked.settings = changed.values;
  if (wish.frame !== 'auto') asked.frame = wish.frame;
  if (wish.origin !== 'auto') asked.origin = wish.origin;
  return { asked: Object.keys(faults).length ? null : asked, faults };
}
