import tailwind from '@tailwindcss/vite';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

// `npm run dev` proxies API requests to a running server: LUMIGRAPH=http://127.0.0.1:7007 npm run dev
const server = process.env.LUMIGRAPH ?? 'http://127.0.0.1:7007';

export default defineConfig({
  plugins: [react(), tailwind()],
  build: {
    outDir: '../lumigraph/server/static',
    emptyOutDir: true,
    target: 'es2022',
    chunkSizeWarningLimit: 3000, // Spark bundles its wasm; it is loaded with the first scene
    assetsInlineLimit: 0, // the Content-Security-Policy allows no data: URLs for assets
  },
  server: { proxy: { '/api': { target: server, ws: true, changeOrigin: true } } },
  test: { environment: 'jsdom', include: ['src/**/*.test.{ts,tsx}', 'eslint/*.test.js'] },
});
