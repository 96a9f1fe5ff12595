// The camera path as a strip of key frames under the scene.

import { ChevronLeft, ChevronRight, Clapperboard, Play, Plus, Square, Trash2 } from 'lucide-react';

import { Button, IconButton } from '../../design/Button';
import { duration, type KeyFrame } from '../../geometry/cameraPath';
import type { Path } from './useCameraPath';

export function PathStrip({ path, onRender }: { path: Path; onRender: () => void }) {
  const { keys, playing } = path;
  const totalSeconds = duration(keys);
  return (
    <section aria-label="Camera path" className="border-t border-line bg-surface px-3 py-2">
      <div className="flex flex-wrap items-center gap-2">
        <Button small icon={<Plus className="size-4" />} onClick={path.add}>
          Add view
        </Button>
        {keys.length > 1 && (
          <>
            <Button
              small
              icon={playing === null ? <Play className="size-4" /> : <Square className="size-4" />}
              onClick={playing === null ? path.play : path.stop}
            >
              {playing === null ? 'Play' : 'Stop'}
            </Button>
            <Button small icon={<Clapperboard className="size-4" />} onClick={onRender}>
              Render video
            </Button>
            <span className="text-xs text-soft tabular-nums">
              {playing === null ? '' : `${playing.toFixed(1)} of `}
              {totalSeconds.toFixed(1)} s
            </span>
          </>
        )}
        {keys.length === 0 && (
          <p className="text-xs text-soft">Add two or more views to make a camera path.</p>
        )}
      </div>
      {keys.length > 0 && (
        <ol className="mt-2 flex items-center gap-2 overflow-x-auto pb-1">
          {keys.map((key, i) => (
            <Chip key={key.id} frame={key} index={i} last={i === keys.length - 1} path={path} />
          ))}
        </ol>
      )}
    </section>
  );
}

function Chip({ frame, index, last, path }: { frame: KeyFrame; index: number; last: boolean; path: Path }) {
  const name = `view ${index + 1}`;
  const tool = 'size-7!';
  return (
    <li className="flex shrink-0 items-center gap-2">
      <div className="flex items-center rounded-lg border border-line bg-raised pr-0.5">
        <button
          type="button"
          className="relative h-10 min-w-8 overflow-hidden rounded-lg text-sm font-semibold tabular-nums hover:text-sun-text focus-visible:outline-offset-0"
          aria-label={`Go to ${name}`}
          title={`Go to ${name}`}
          onClick={() => path.show(frame.view)}
        >
          {frame.picture && (
            <img src={frame.picture} alt={`Thumbnail of ${name}`} width={60} height={40} draggable={false} />
          )}
          <span
            className={
              frame.picture ? 'absolute top-0 left-0 rounded-br-lg bg-surface/90 px-1.5 text-xs' : ''
            }
          >
            {index + 1}
          </span>
        </button>
        <IconButton
          label={`Move ${name} earlier`}
          className={tool}
          disabled={index === 0}
          onClick={() => path.move(index, index - 1)}
        >
          <ChevronLeft className="size-4" />
        </IconButton>
        <IconButton
          label={`Move ${name} later`}
          className={tool}
          disabled={last}
          onClick={() => path.move(index, index + 1)}
        >
          <ChevronRight className="size-4" />
        </IconButton>
        <IconButton label={`Remove ${name}`} className={tool} onClick={() => path.remove(frame.id)}>
          <Trash2 className="size-3.5" />
        </IconButton>
      </div>
      {!last && <Seconds frame={frame} name={name} path={path} />}
    </li>
  );
}

function Seconds({ frame, name, path }: { frame: KeyFrame; name: string; path: Path }) {
  return (
    <label className="flex items-center gap-1 text-xs text-soft">
      <span className="sr-only">Seconds from {name} to the next</span>
      <input
        type="number"
        min={0.1}
        max={60}
        step={0.5}
        value={frame.seconds}
        onChange={(event) => {
          const seconds = event.target.valueAsNumber;
          if (seconds > 0 && seconds <= 60) path.time(frame.id, seconds);
        }}
        className="h-8 w-16 rounded-lg border border-line bg-ground px-1.5 text-sm text-ink tabular-nums"
      />
      s
    </label>
  );
}
