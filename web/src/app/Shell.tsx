// What stands around every page: the name, the way back, the theme, and a word when the server is away.

import { Monitor, Moon, Sun } from 'lucide-react';
import { type ReactNode, useEffect, useRef } from 'react';
import { Link, useLocation } from 'wouter';

import { IconButton } from '../design/Button';
import { type Theme, useTheme } from '../design/theme';
import { useStudio } from '../state/store';

const NEXT: Record<Theme, Theme> = { system: 'light', light: 'dark', dark: 'system' };
const ICON: Record<Theme, ReactNode> = {
  system: <Monitor className="size-4" />,
  light: <Sun className="size-4" />,
  dark: <Moon className="size-4" />,
};

export function Shell({ children }: { children: ReactNode }) {
  const connected = useStudio((state) => state.connected);
  const { theme, choose } = useTheme();
  const main = useFocusOf(useLocation()[0]);
  return (
    <div className="flex min-h-dvh flex-col">
      <a
        href="#main"
        className="sr-only focus:not-sr-only focus:absolute focus:z-50 focus:bg-surface focus:p-3"
      >
        Skip to the content
      </a>
      <header className="flex h-14 shrink-0 items-center justify-between border-b border-line bg-surface px-4 sm:px-6">
        <Link href="/" className="flex items-center gap-2.5 font-semibold tracking-tight">
          <img src="/icon.svg" alt="" className="size-7" />
          Lumigraph
        </Link>
        <IconButton label={`Theme: ${theme}`} onClick={() => choose(NEXT[theme])}>
          {ICON[theme]}
        </IconButton>
      </header>
      {connected === false && (
        <p role="status" className="bg-bad-ground px-4 py-2 text-center text-sm text-bad">
          The server does not answer. This page comes back by itself; nothing that ran is lost.
        </p>
      )}
      <main id="main" ref={main} tabIndex={-1} className="flex flex-1 flex-col">
        {children}
      </main>
    </div>
  );
}

/** Where what had the focus went away with its room, the room that came has it, so that keys go on from there. */
function useFocusOf(place: string) {
  const main = useRef<HTMLElement>(null);
  const last = useRef(place);
  useEffect(() => {
    if (last.current !== place && document.activeElement === document.body) {
      main.current?.focus({ preventScroll: true });
    }
    last.current = place;
  }, [place]);
  return main;
}
