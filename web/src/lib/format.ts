// Numbers for people to read.

export function formatBytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (count >= 999.5 && unit < units.length - 1) {
    count /= 1000;
    unit++;
  }
  return `${count >= 100 || unit === 0 ? Math.round(count) : count.toPrecision(2)} ${units[unit]}`;
}

export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')} min`;
}

export function formatAge(seconds: number, now = Date.now() / 1000): string {
  const past = Math.max(0, now - seconds);
  if (past < 60) return 'just now';
  if (past < 3600) return pluralize(Math.floor(past / 60), 'minute') + ' ago';
  if (past < 86_400) return pluralize(Math.floor(past / 3600), 'hour') + ' ago';
  return new Date(seconds * 1000).toLocaleDateString(undefined, { dateStyle: 'medium' });
}

export const formatCount = (value: number): string => value.toLocaleString('en');

export const pluralize = (value: number, word: string): string =>
  `${formatCount(value)} ${word}${value === 1 ? '' : 's'}`;

export const formatDecibels = (value: number | null | undefined): string =>
  value === null || value === undefined ? '–' : `${value.toFixed(2)} dB`;
