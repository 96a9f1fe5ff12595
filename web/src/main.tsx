import './design/tokens.css';

import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { setNonce } from 'get-nonce';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { listen } from './state/events';
import { App } from './app/App';
import { Toasts } from './design/Toasts';
import { followSystemTheme } from './design/theme';

// Dialogs hold the page behind them still by a style of their own, which the page's policy knows by this word.
setNonce(document.querySelector<HTMLMetaElement>('meta[name=nonce]')?.content ?? '');
followSystemTheme();
listen();

const queries = new QueryClient({ defaultOptions: { queries: { staleTime: 10_000, retry: 1 } } });
const root = document.getElementById('root');
if (!root) throw new Error('the page has no root');

createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <App />
      <Toasts />
    </QueryClientProvider>
  </StrictMode>,
);
