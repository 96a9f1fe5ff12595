import type { HTMLAttributes, ReactNode } from 'react';

export function Card({ className = '', ...props }: HTMLAttributes<HTMLDivElement>) {
  return <div className={`rounded-card border border-line bg-surface ${className}`} {...props} />;
}

/** A card with a heading. `aside` is at the right end of the heading. */
export function Panel({
  title,
  aside,
  children,
  className = '',
}: {
  title: string;
  aside?: ReactNode;
  children: ReactNode;
  className?: string;
}) {
  return (
    <Card className={className}>
      <section aria-label={title}>
        <header className="flex min-h-12 items-center justify-between gap-3 border-b border-line px-4 py-2">
          <h2 className="text-sm font-semibold">{title}</h2>
          {aside}
        </header>
        <div className="p-4">{children}</div>
      </section>
    </Card>
  );
}

/** An empty state: what belongs here and how to get it. */
export function Empty({
  icon,
  title,
  children,
  action,
}: {
  icon?: ReactNode;
  title: string;
  children?: ReactNode;
  action?: ReactNode;
}) {
  return (
    <div className="flex flex-col items-center gap-3 px-6 py-14 text-center">
      {icon && <div className="text-soft [&_svg]:size-9 [&_svg]:stroke-[1.4]">{icon}</div>}
      <h2 className="text-base font-semibold">{title}</h2>
      {children && <p className="max-w-md text-sm text-soft">{children}</p>}
      {action && <div className="mt-2">{action}</div>}
    </div>
  );
}

/** A number with its label, as on a dashboard. */
export function Metric({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="min-w-0">
      <dt className="truncate text-xs text-soft">{name}</dt>
      <dd className="truncate text-lg font-semibold tabular-nums">{children}</dd>
    </div>
  );
}
