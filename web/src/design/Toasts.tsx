// Short messages at the edge of the page: errors, or finished actions with an undo.

import { X } from 'lucide-react';
import { useEffect } from 'react';
import { create } from 'zustand';

import { errorMessage } from '../lib/errors';
import { IconButton } from './Button';

interface Toast {
  id: number;
  text: string;
  isError: boolean;
  undo?: () => void;
}

let next = 0;
const useToasts = create<{ toasts: Toast[] }>(() => ({ toasts: [] }));
const add = (toast: Omit<Toast, 'id'>) =>
  useToasts.setState(({ toasts }) => ({ toasts: [...toasts.slice(-2), { ...toast, id: next++ }] }));
const remove = (id: number) =>
  useToasts.setState(({ toasts }) => ({ toasts: toasts.filter((toast) => toast.id !== id) }));

export const showMessage = (text: string, undo?: () => void): void =>
  add({ text, isError: false, ...(undo ? { undo } : {}) });
export const showError = (error: unknown): void => add({ text: errorMessage(error), isError: true });

export function Toasts() {
  const toasts = useToasts((state) => state.toasts);
  return (
    <div
      aria-live="polite"
      className="pointer-events-none fixed inset-x-0 bottom-4 z-50 flex flex-col items-center gap-2 px-4"
    >
      {toasts.map((toast) => (
        <ToastItem key={toast.id} toast={toast} />
      ))}
    </div>
  );
}

function ToastItem({ toast }: { toast: Toast }) {
  useEffect(() => {
    const timer = setTimeout(() => remove(toast.id), toast.isError ? 12_000 : 7_000);
    return () => clearTimeout(timer);
  }, [toast]);
  return (
    <div
      role={toast.isError ? 'alert' : 'status'}
      className="pointer-events-auto flex max-w-lg items-center gap-3 rounded-lg border border-line bg-surface py-1 pr-1 pl-4 text-sm shadow-lg"
    >
      <span className={toast.isError ? 'text-bad' : ''}>{toast.text}</span>
      {toast.undo && (
        <button
          type="button"
          className="rounded-md px-2 py-1 font-semibold text-sun-text hover:bg-raised"
          onClick={() => {
            toast.undo?.();
            remove(toast.id);
          }}
        >
          Undo
        </button>
      )}
      <IconButton label="Dismiss" onClick={() => remove(toast.id)}>
        <X className="size-4" />
      </IconButton>
    </div>
  );
}
