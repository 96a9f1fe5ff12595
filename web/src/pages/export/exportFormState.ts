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
export interface ExportFormState {
  target: ExportTarget | null;
  form: string | null;
  kind: Kind | null;
  purpose: Purpose | null;
  entries: Record<string, Entry>; // changed settings
  frame: Frame;
  origin: Origin;
  video: VideoFormState;
}

export const INITIAL_EXPORT: ExportFormState = {
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

export function resolveSelection(
  state: ExportFormState,
  offers: FormatOffer[],
  withoutSplats: boolean,
): Selection {
  const targets = targetsFor(offers, withoutSplats);
  const target = targets.find((offered) => offered === state.target) ?? targets[0] ?? 'video';
  const forms = formatsFor(target, offers, withoutSplats);
  const form = forms.find((offered) => offered.form === state.form) ?? forms[0];
  const kind = form?.kinds.find((offered) => offered.kind === state.kind) ?? form?.kinds[0];
  return { targets, target, forms, file: form && kind ? fileOf(state, form, kind) : null };
}

function fileOf(state: ExportFormState, form: Form, kind: KindOffer): File {
  const offered = purposesFor(kind);
  const fixed = offered.find((purpose) => purpose === form.purpose);
  const purpose = fixed ?? offered.find((candidate) => candidate === state.purpose) ?? null;
  const values = purpose ? (kind.presets[purpose] ?? {}) : {};
  const settings = kind.settings.map((setting) =>
    setting.name in values ? { ...setting, default: values[setting.name] ?? null } : setting,
  );
  return { form, kind, purposes: fixed ? [] : offered, purpose, settings };
}

/** Whether the default of a setting comes from the purpose. */
export const isFromPurpose = ({ kind, purpose }: File, setting: string): boolean =>
  purpose !== null && setting in (kind.presets[purpose] ?? {});

/** The request, null if the form has errors; errors by the server's field names. */
export function buildExportRequest(
  state: ExportFormState,
  { file }: Selection,
  run: string,
): { request: JobRequest | null; errors: Record<string, string> } {
  if (!file) return buildVideoRequest(state.video, run);
  const errors: Record<string, string> = {};
  const changed = changedValues(file.settings, state.entries);
  for (const [name, error] of Object.entries(changed.errors)) errors[`settings.${name}`] = error;
  const request: ExportJob = { verb: 'export', run, form: file.form.form, kind: file.kind.kind };
  if (file.purpose) request.preset = file.purpose;
  if (Object.keys(changed.values).length) request.settings = changed.values;
  if (state.frame !== 'auto') request.frame = state.frame;
  if (state.origin !== 'auto') request.origin = state.origin;
  return { request: Object.keys(errors).length ? null : request, errors };
}
