// The state of the export form, and its request.

import type { JobRequest, Schema } from '../../api/client';
import { changedValues, type Entry, type Setting } from '../../forms/settingSchema';
import { type VideoFormState, buildVideoRequest, INITIAL_VIDEO } from './videoFormState';
import {
  type Form,
  formatsFor,
  type Kind,
  type KindOffer,
  type FormatOffer,
  type Purpose,
  purposesFor,
  type ExportTarget,
  targetsFor,
} from './exportFormats';

type ExportJob = Schema['ExportJob'];
export type Frame = NonNullable<ExportJob['frame']>;
export type Origin = NonNullable<ExportJob['origin']>;

/** The choices in the form; null: the recommended one. */
export interface Wish {
  target: ExportTarget | null;
  form: string | null;
  kind: Kind | null;
  purpose: Purpose | null;
  entries: Record<string, Entry>; // changed settings
  frame: Frame;
  origin: Origin;
  video: VideoFormState;
}

export const NEW: Wish = {
  target: null,
  form: null,
  kind: null,
  purpose: null,
  entries: {},
  frame: 'auto',
  origin: 'auto',
  video: INITIAL_VIDEO,
};

/** The selected target and format among the offered ones. */
export interface Selection {
  targets: ExportTarget[];
  target: ExportTarget;
  forms: Form[];
  file: File | null; // null: a video, or nothing yet
}

export interface File {
  form: Form;
  kind: KindOffer;
  purposes: Purpose[]; // the offered ones
  purpose: Purpose | null;
  settings: Setting[]; // with the defaults of the purpose
}

export function chosen(wish: Wish, offers: FormatOffer[], withoutSplats: boolean): Selection {
  const targets = targetsFor(offers, withoutSplats);
  const target = targets.find((one) => one === wish.target) ?? targets[0] ?? 'video';
  const forms = formatsFor(target, offers, withoutSplats);
  const form = forms.find((one) => one.form === wish.form) ?? forms[0];
  const kind = form?.kinds.find((one) => one.kind === wish.kind) ?? form?.kinds[0];
  return { targets, target, forms, file: form && kind ? fileOf(wish, form, kind) : null };
}

function fileOf(wish: Wish, form: Form, kind: KindOffer): File {
  const offered = purposesFor(kind);
  const only = offered.find((one) => one === form.purpose);
  const purpose = only ?? offered.find((one) => one === wish.purpose) ?? null;
  const values = purpose ? (kind.presets[purpose] ?? {}) : {};
  const settings = kind.settings.map((one) =>
    one.name in values ? { ...one, default: values[one.name] ?? null } : one,
  );
  return { form, kind, purposes: only ? [] : offered, purpose, settings };
}

/** Whether the default of a setting comes from the purpose. */
export const isFromPurpose = ({ kind, purpose }: File, setting: string): boolean =>
  purpose !== null && setting in (kind.presets[purpose] ?? {});

/** The request, null if the form has errors; errors by the server's field names. */
export function request(
  wish: Wish,
  { file }: Selection,
  run: string,
): { asked: JobRequest | null; errors: Record<string, string> } {
  if (!file) return buildVideoRequest(wish.video, run);
  const errors: Record<string, string> = {};
  const changed = changedValues(file.settings, wish.entries);
  for (const [name, error] of Object.entries(changed.errors)) errors[`settings.${name}`] = error;
  const asked: ExportJob = { verb: 'export', run, form: file.form.form, kind: file.kind.kind };
  if (file.purpose) asked.preset = file.purpose;
  if (Object.keys(changed.values).length) asked.settings = changed.values;
  if (wish.frame !== 'auto') asked.frame = wish.frame;
  if (wish.origin !== 'auto') asked.origin = wish.origin;
  return { asked: Object.keys(errors).length ? null : asked, errors };
}
