// Light or dark: as the system says, unless the person said otherwise.

import { create } from 'zustand';

export type Theme = 'system' | 'light' | 'dark';
const KEY = 'lumigraph.theme';
const dark = () => matchMedia('(prefers-color-scheme: dark)');

const stored = (): Theme => {
  const found = localStorage.getItem(KEY);
  return found === 'light' || found === 'dark' ? found : 'system';
};

export const useTheme = create<{ theme: Theme; choose: (theme: Theme) => void }>((set) => ({
  theme: stored(),
  choose: (theme) => {
    localStorage.setItem(KEY, theme);
    set({ theme });
    apply();
  },
}));

export const isDark = (): boolean => document.documentElement.dataset.theme === 'dark';

export function followSystemTheme(): void {
  apply();
  dark().addEventListener('change', apply);
}

function apply(): void {
  const { theme } = useTheme.getState();
  document.documentElement.dataset.theme = theme === 'system' ? (dark().matches ? 'dark' : 'light') : theme;
}
