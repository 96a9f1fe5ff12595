// Files and folders that were dropped on the page.

export interface NamedFile {
  file: File;
  name: string; // with folders
}

/** The dropped files, with the files of dropped folders. */
export async function readDroppedFiles(items: DataTransferItemList): Promise<NamedFile[]> {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const files = await Promise.all(entries.map((entry) => walk(entry, '')));
  return files.flat();
}

async function walk(entry: FileSystemEntry, folder: string): Promise<NamedFile[]> {
  const name = folder + entry.name;
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) =>
      (entry as FileSystemFileEntry).file(resolve, reject),
    );
    return [{ file, name }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const files: NamedFile[] = [];
  for (;;) {
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (!batch.length) return files;
    for (const child of batch) files.push(...(await walk(child, `${name}/`)));
  }
}
