/** Progress from 0 to 1. Without `value` the duration is unknown. */
export function ProgressBar({ value, label }: { value?: number | null; label: string }) {
  const known = value !== undefined && value !== null;
  return (
    <div
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={known ? Math.round(100 * value) : undefined}
      className="h-1.5 overflow-hidden rounded-full bg-raised"
    >
      <div
        className={`h-full rounded-full bg-sun ${known ? 'transition-[width] duration-300' : 'w-1/3 animate-pulse'}`}
        style={known ? { width: `${100 * Math.min(1, Math.max(0, value))}%` } : undefined}
      />
    </div>
  );
}
