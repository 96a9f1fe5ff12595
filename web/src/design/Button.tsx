import type { ButtonHTMLAttributes, ReactNode } from 'react';

type Look = 'primary' | 'plain' | 'quiet' | 'danger';

const LOOKS: Record<Look, string> = {
  primary: 'bg-sun text-sun-ink hover:brightness-105 shadow-sm',
  plain: 'bg-surface text-ink border border-line hover:bg-raised',
  quiet: 'text-soft hover:text-ink hover:bg-raised',
  danger: 'bg-bad-ground text-bad hover:brightness-95',
};

export interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  look?: Look;
  icon?: ReactNode;
  small?: boolean;
}

export function Button({ look = 'plain', icon, small, className = '', children, ...rest }: ButtonProps) {
  const size = small ? 'h-8 px-2.5 text-sm gap-1.5' : 'h-10 px-4 text-sm gap-2';
  return (
    <button
      type="button"
      className={`inline-flex shrink-0 items-center justify-center rounded-lg font-medium whitespace-nowrap transition disabled:cursor-not-allowed disabled:opacity-50 ${size} ${LOOKS[look]} ${className}`}
      {...rest}
    >
      {icon}
      {children}
    </button>
  );
}

/** A button that shows a picture alone; `label` is what it says to those who cannot see it, and on hovering. */
export function IconButton({
  label,
  active,
  className = '',
  children,
  ...rest
}: ButtonProps & { label: string; active?: boolean }) {
  return (
    <button
      type="button"
      aria-label={label}
      title={label}
      aria-pressed={active}
      className={`inline-flex size-9 shrink-0 items-center justify-center rounded-lg transition disabled:opacity-40 ${active ? 'bg-sun text-sun-ink' : 'text-soft hover:bg-raised hover:text-ink'} ${className}`}
      {...rest}
    >
      {children}
    </button>
  );
}
