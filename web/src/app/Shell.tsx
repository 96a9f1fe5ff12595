// The frame around every page: name, home link, theme and a notice while the server is unreachable.

import { Monitor, Moon, Sun } from 'lucide-react';
import { type ReactNode, useEffect, useRef } from 'react';
import { Link, useLocation } from 'wouter';

import { IconButton } from '../design/Button';
import { type Theme, useTheme } from '../design/theme';
import { useStore } from '../state/store';

const NEXT: Record<Theme, Theme> = { system: 'light', light: 'dark', dark: 'system' };
const ICON: Record<Theme, ReactNode> = {
  system: <Monitor className="size-4" />,
  light: <Sun className="size-4" />,
  dark: <Moon className="size-4" />,
};

export function Shell({ children }: { children: ReactNode }) {
  const connected = useStore((state) => state.connected);
  const { theme, setTheme } = useTheme();
  const main = useFocusOnNavigation(useLocation()[0]);
  return (
    <div className="flex min-h-dvh flex-col">
      <a
        href="#main"
        className="sr-only focus:not-sr-only focus:absolute focus:z-50 focus:bg-surface focus:p-3"
      >
        Skip to content
      </a>
      <header className="flex h-14 shrink-0 items-center justify-between border-b border-line bg-surface px-4 sm:px-6">
        <Link href="/" className="flex items-center gap-2.5 font-semibold tracking-tight">
          <img src="/icon.svg" alt="" className="size-7" />
          Lumigraph
        </Link>
        <IconButton label={`Theme: ${theme}`} onClick={() => setTheme(NEXT[theme])}>
          {ICON[theme]}
        </IconButton>
      </header>
      {connected === false && (
        <p role="status" className="bg-bad-ground px-4 py-2 text-center text-sm text-bad">
          The server does not answer. Jobs continue; this page reconnects by itself.
        </p>
      )}
      <main id="main" ref={main} tabIndex={-1} className="flex flex-1 flex-col">
        {children}
      </main>
    </div>
  );
}

/** Moves the focus to the new page if the focused element is gone, so that keyboard use continues there. */
function useFocusOnNavigation(location: string) {
  const main = useRef<HTMLElement>(null);
  const last = useRef(location);
  useEffect(() => {
    if (last.current !== location && document.activeElement === document.body) {
      main.current?.focus({ preventScroll: true });
    }
    last.current = location;
  }, [location]);
  return main;
}
