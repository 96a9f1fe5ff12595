import type { ReactNode } from 'react';

/** Optional content behind a title. `open` expands it. */
export function Disclosure({
  title,
  open,
  plain,
  children,
}: {
  title: string;
  open?: boolean;
  plain?: boolean; // without a line above the title
  children: ReactNode;
}) {
  return (
    <details open={open || undefined} className={plain ? '' : 'border-t border-line pt-4'}>
      <summary className="cursor-pointer text-sm font-medium">{title}</summary>
      <div className="pt-4">{children}</div>
    </details>
  );
}
