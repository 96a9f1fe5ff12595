// A drop zone for photos, with buttons to choose files or a folder.

import { FolderOpen, ImagePlus } from 'lucide-react';
import { type DragEvent, type ReactNode, useRef, useState } from 'react';

import { Button } from '../design/Button';
import { showError } from '../design/Toasts';
import { readDroppedFiles, type NamedFile } from '../lib/droppedFiles';

const ACCEPT = 'image/*,video/*,.zip,.heic,.heif,.json,.bin,.txt,.npy,.ply';

export function FileDropZone({
  onFiles,
  children,
  small,
}: {
  onFiles: (files: NamedFile[]) => void;
  children?: ReactNode;
  small?: boolean;
}) {
  const [over, setOver] = useState(false);
  const files = useRef<HTMLInputElement>(null);
  const folder = useRef<HTMLInputElement>(null);

  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    readDroppedFiles(event.dataTransfer.items).then(onFiles, showError);
  };
  const handleFiles = (list: FileList | null) => {
    const files = [...(list ?? [])].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
    if (files.length) onFiles(files);
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
          variant={small ? 'plain' : 'primary'}
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
        onChange={(event) => handleFiles(event.target.files)}
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
        onChange={(event) => handleFiles(event.target.files)}
      />
    </section>
  );
}
