// Light or dark theme: the system's, unless the user chose one.

import { create } from 'zustand';

export type Theme = 'system' | 'light' | 'dark';
const KEY = 'lumigraph.theme';
const darkQuery = () => matchMedia('(prefers-color-scheme: dark)');

const storedTheme = (): Theme => {
  const value = localStorage.getItem(KEY);
  return value === 'light' || value === 'dark' ? value : 'system';
};

export const useTheme = create<{ theme: Theme; setTheme: (theme: Theme) => void }>((set) => ({
  theme: storedTheme(),
  setTheme: (theme) => {
    localStorage.setItem(KEY, theme);
    set({ theme });
    apply();
  },
}));

export const isDark = (): boolean => document.documentElement.dataset.theme === 'dark';

export function followSystemTheme(): void {
  apply();
  darkQuery().addEventListener('change', apply);
}

function apply(): void {
  const { theme } = useTheme.getState();
  document.documentElement.dataset.theme =
    theme === 'system' ? (darkQuery().matches ? 'dark' : 'light') : theme;
}
