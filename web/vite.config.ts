import tailwind from '@tailwindcss/vite';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

// `npm run dev` shows the pages of a server that runs beside it: LUMIGRAPH=http://127.0.0.1:7007 npm run dev
const server = process.env.LUMIGRAPH ?? 'http://127.0.0.1:7007';

export default defineConfig({
  plugins: [react(), tailwind()],
  build: {
    outDir: '../lumigraph/server/static',
    emptyOutDir: true,
    target: 'es2022',
    chunkSizeWarningLimit: 3000, // Spark comes with its wasm inside, and is loaded when a scene is looked at
    assetsInlineLimit: 0, // a strict Content-Security-Policy knows no data: URLs of ours
  },
  server: { proxy: { '/api': { target: server, ws: true, changeOrigin: true } } },
  test: { environment: 'jsdom', include: ['src/**/*.test.{ts,tsx}'] },
});
