import { ProgressBar } from '../../design/ProgressBar';
import { Button } from '../../design/Button';
import { Card } from '../../design/Card';
import { formatBytes, pluralize } from '../../lib/format';
import { dismissUpload, type Upload } from '../../state/uploads';

export function UploadProgress({ sending }: { sending: Upload }) {
  const over = sending.done === sending.files;
  return (
    <Card className="flex flex-col gap-3 p-4">
      {!over && (
        <>
          <p className="flex justify-between gap-4 text-sm">
            <span>
              UploadProgress {pluralize(sending.files, 'file')}, {sending.done} finished
            </span>
            <span className="text-soft tabular-nums">
              {formatBytes(sending.sent)} of {formatBytes(sending.bytes)}
            </span>
          </p>
          <ProgressBar value={sending.bytes ? sending.sent / sending.bytes : null} label="Uploading" />
          <p className="text-xs text-soft">Keep this page open. A broken connection resumes.</p>
        </>
      )}
      {sending.failed.length > 0 && (
        <div role="alert" className="flex flex-col gap-2 text-sm">
          <p className="font-medium text-bad">{pluralize(sending.failed.length, 'file')} failed to upload:</p>
          <ul className="max-h-40 overflow-auto text-xs">
            {sending.failed.map(({ name, why }) => (
              <li key={name}>
                <span className="font-medium">{name}</span>: {why}
              </li>
            ))}
          </ul>
          {over && (
            <Button small className="self-start" onClick={() => dismissUpload(sending.project)}>
              Continue without {sending.failed.length === 1 ? 'it' : 'them'}
            </Button>
          )}
        </div>
      )}
    </Card>
  );
}
