import './design/tokens.css';

import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { setNonce } from 'get-nonce';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { connectEvents } from './state/events';
import { App } from './app/App';
import { Toasts } from './design/Toasts';
import { followSystemTheme } from './design/theme';

// Dialogs inject a style that stops scrolling; the Content-Security-Policy allows it by this nonce.
setNonce(document.querySelector<HTMLMetaElement>('meta[name=nonce]')?.content ?? '');
followSystemTheme();
connectEvents();

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
