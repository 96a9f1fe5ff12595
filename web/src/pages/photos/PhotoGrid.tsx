// The files of a project, photos as thumbnails.

import { FileText, Film } from 'lucide-react';

import type { Schema } from '../../api/client';
import { type Capture, captureFile, projectFile } from '../../api/previews';
import { Panel } from '../../design/Card';
import { formatBytes, pluralize } from '../../lib/format';

const PHOTO = /\.(jpe?g|png|webp)$/i;
const VIDEO = /\.(mp4|mov|m4v|mkv|webm|avi)$/i;
const MOST = 600; // thumbnails on one page

interface PhotosProps {
  project: string;
  files: Schema['StoredFile'][];
  capture: Capture | null;
  onChoose: (name: string) => void;
}

export function PhotoGrid({ project, files, capture, onChoose }: PhotosProps) {
  const thumbs = new Map(capture?.images.map((image) => [baseName(image.name), image]));
  const photos = files.filter((file) => PHOTO.test(file.name));
  const others = files.filter((file) => !PHOTO.test(file.name));
  return (
    <>
      {capture && capture.rejected.length > 0 && (
        <Panel title={`${pluralize(capture.rejected.length, 'photo')} could not be posed`}>
          <ul className="flex flex-col gap-1 text-sm">
            {capture.rejected.map(({ name, reason }) => (
              <li key={name}>
                <span className="font-medium">{name}</span> <span className="text-soft">{reason}</span>
              </li>
            ))}
          </ul>
        </Panel>
      )}
      <Panel title={photos.length ? pluralize(photos.length, 'photo') : 'Files'}>
        <ul className="grid grid-cols-3 gap-2 sm:grid-cols-5 lg:grid-cols-8">
          {photos.slice(0, MOST).map((file) => {
            const known = thumbs.get(baseName(file.name));
            return (
              <li key={file.name}>
                <button type="button" className="block w-full text-left" onClick={() => onChoose(file.name)}>
                  <img
                    src={known ? captureFile(project, known.thumb) : projectFile(project, file.name)}
                    alt=""
                    loading="lazy"
                    decoding="async"
                    className="aspect-square w-full rounded-md bg-raised object-cover"
                  />
                  <span className="mt-1 flex items-center gap-1 text-2xs text-soft">
                    <span className="truncate">{baseName(file.name)}</span>
                    {known?.held_out && (
                      <span
                        title="Held out from training, used for evaluation"
                        className="shrink-0 rounded bg-raised px-1"
                      >
                        test
                      </span>
                    )}
                  </span>
                </button>
              </li>
            );
          })}
        </ul>
        {photos.length > MOST && <p className="mt-3 text-sm text-soft">and {photos.length - MOST} more</p>}
        {others.length > 0 && (
          <ul className="mt-3 flex flex-col gap-1 text-sm text-soft">
            {others.map((file) => (
              <li key={file.name} className="flex items-center gap-2">
                {VIDEO.test(file.name) ? (
                  <Film className="size-4" aria-hidden />
                ) : (
                  <FileText className="size-4" aria-hidden />
                )}
                <span className="truncate">{file.name}</span>
                <span className="text-xs">{formatBytes(file.bytes)}</span>
              </li>
            ))}
          </ul>
        )}
      </Panel>
    </>
  );
}

export const baseName = (name: string): string => name.slice(name.lastIndexOf('/') + 1);
