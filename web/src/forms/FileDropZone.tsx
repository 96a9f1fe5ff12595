// Where photos go in: dropped anywhere on it, or chosen.

import { FolderOpen, ImagePlus } from 'lucide-react';
import { type DragEvent, type ReactNode, useRef, useState } from 'react';

import { Button } from '../design/Button';
import { complain } from '../design/Toasts';
import { dropped, type Found } from '../lib/droppedFiles';

const ACCEPT = 'image/*,video/*,.zip,.heic,.heif,.json,.bin,.txt,.npy,.ply';

export function DropZone({
  onFiles,
  children,
  small,
}: {
  onFiles: (found: Found[]) => void;
  children?: ReactNode;
  small?: boolean;
}) {
  const [over, setOver] = useState(false);
  const files = useRef<HTMLInputElement>(null);
  const folder = useRef<HTMLInputElement>(null);

  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    dropped(event.dataTransfer.items).then(onFiles, complain);
  };
  const chosen = (list: FileList | null) => {
    const found = [...(list ?? [])].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
    if (found.length) onFiles(found);
  };

  return (
    <section
      aria-label="Drop photos here"
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
      className={`flex flex-col items-center gap-3 rounded-card border-2 border-dashed px-6 text-center transition ${small ? 'py-6' : 'py-12'} ${over ? 'border-sun bg-raised' : 'border-line bg-surface'}`}
    >
      {children}
      <div className="flex flex-wrap justify-center gap-2">
        <Button
          look={small ? 'plain' : 'primary'}
          icon={<ImagePlus className="size-4" />}
          onClick={() => files.current?.click()}
        >
          Choose photos or a video
        </Button>
        <Button icon={<FolderOpen className="size-4" />} onClick={() => folder.current?.click()}>
          Choose a folder
        </Button>
      </div>
      <input
        ref={files}
        type="file"
        multiple
        hidden
        accept={ACCEPT}
        aria-label="Photos, a zip or a video"
        data-testid="files"
        onChange={(event) => chosen(event.target.files)}
      />
      <input
        ref={(input) => {
          folder.current = input;
          input?.setAttribute('webkitdirectory', '');
        }}
        type="file"
        multiple
        hidden
        aria-label="A folder of photos"
        onChange={(event) => chosen(event.target.files)}
      />
    </section>
  );
}
