import type { ReactNode } from 'react';

/** What few people need, behind its title. Where it must be seen, `open` opens it. */
export function Fold({
  title,
  open,
  plain,
  children,
}: {
  title: string;
  open?: boolean;
  plain?: boolean; // without a line above
  children: ReactNode;
}) {
  return (
    <details open={open || undefined} className={plain ? '' : 'border-t border-line pt-4'}>
      <summary className="cursor-pointer text-sm font-medium">{title}</summary>
      <div className="pt-4">{children}</div>
    </details>
  );
}
