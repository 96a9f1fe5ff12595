import type { ButtonHTMLAttributes, ReactNode } from 'react';

type Variant = 'primary' | 'plain' | 'quiet' | 'danger';

const VARIANTS: Record<Variant, string> = {
  primary: 'bg-sun text-sun-ink hover:brightness-105 shadow-sm',
  plain: 'bg-surface text-ink border border-line hover:bg-raised',
  quiet: 'text-soft hover:text-ink hover:bg-raised',
  danger: 'bg-bad-ground text-bad hover:brightness-95',
};

export interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  variant?: Variant;
  icon?: ReactNode;
  small?: boolean;
}

export function Button({ variant = 'plain', icon, small, className = '', children, ...props }: ButtonProps) {
  const size = small ? 'h-8 px-2.5 text-sm gap-1.5' : 'h-10 px-4 text-sm gap-2';
  return (
    <button
      type="button"
      className={`inline-flex shrink-0 items-center justify-center rounded-lg font-medium whitespace-nowrap transition disabled:cursor-not-allowed disabled:opacity-50 ${size} ${VARIANTS[variant]} ${className}`}
      {...props}
    >
      {icon}
      {children}
    </button>
  );
}

/** A button with an icon only; `label` is its accessible name and tooltip. */
export function IconButton({
  label,
  active,
  className = '',
  children,
  ...props
}: ButtonProps & { label: string; active?: boolean }) {
  return (
    <button
      type="button"
      aria-label={label}
      title={label}
      aria-pressed={active}
      className={`inline-flex size-9 shrink-0 items-center justify-center rounded-lg transition disabled:opacity-40 ${active ? 'bg-sun text-sun-ink' : 'text-soft hover:bg-raised hover:text-ink'} ${className}`}
      {...props}
    >
      {children}
    </button>
  );
}
