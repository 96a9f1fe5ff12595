// The list of held-out views, the worst first by default.

import { useEffect, useRef } from 'react';

import { runFile } from '../../api/previews';
import { formatDecibels } from '../../lib/format';
import type { Order, View } from './viewOrder';

const ORDERS: [Order, string][] = [
  ['psnr', 'PSNR'],
  ['ssim', 'SSIM'],
  ['name', 'Name'],
];

interface Props {
  project: string;
  run: string;
  views: View[];
  selected: View | undefined;
  by: Order;
  reversed: boolean;
  onChoose: (view: View) => void;
  onOrder: (by: Order) => void;
}

export function ViewList(props: Props) {
  return (
    <div className="flex min-h-0 flex-col gap-2">
      <Orders {...props} />
      <ul className="flex gap-2 overflow-auto pb-2 lg:max-h-[74dvh] lg:flex-col lg:pr-1">
        {props.views.map((view) => (
          <Item key={view.name} {...props} view={view} />
        ))}
      </ul>
    </div>
  );
}

function Orders({ by, reversed, onOrder }: Props) {
  return (
    <div role="group" aria-label="Order" className="flex items-center gap-1 text-xs">
      {ORDERS.map(([order, name]) => (
        <button
          key={order}
          type="button"
          aria-pressed={order === by}
          onClick={() => onOrder(order)}
          className="rounded-md px-2 py-1.5 text-soft hover:bg-raised hover:text-ink aria-pressed:font-semibold aria-pressed:text-ink"
        >
          {name}
          {order === by && <span aria-hidden>{reversed ? ' ↓' : ' ↑'}</span>}
          {order === by && <span className="sr-only">{reversed ? ', highest first' : ', lowest first'}</span>}
        </button>
      ))}
    </div>
  );
}

function Item({ project, run, view, selected, onChoose }: Props & { view: View }) {
  const item = useRef<HTMLLIElement>(null);
  const current = view === selected;
  useEffect(() => {
    if (current) item.current?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }, [current]);
  return (
    <li ref={item} className="w-32 shrink-0 lg:w-full">
      <button
        type="button"
        aria-current={current ? 'true' : undefined}
        onClick={() => onChoose(view)}
        className="flex w-full flex-col gap-2 rounded-lg border border-transparent p-1.5 text-left hover:bg-raised aria-[current]:border-sun aria-[current]:bg-raised lg:flex-row lg:items-center"
      >
        <img
          src={runFile(project, run, view.render)}
          alt=""
          loading="lazy"
          className="aspect-4/3 w-full rounded-md bg-raised object-cover lg:w-20"
        />
        <span className="min-w-0 text-xs">
          <span className="block truncate text-soft">{view.name}</span>
          <span className="block font-semibold tabular-nums">{formatDecibels(view.psnr)}</span>
          {view.ssim !== null && (
            <span className="block text-soft tabular-nums">SSIM {view.ssim.toFixed(3)}</span>
          )}
        </span>
      </button>
    </li>
  );
}
