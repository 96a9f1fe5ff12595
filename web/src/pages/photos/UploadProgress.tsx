import { Meter } from '../../design/ProgressBar';
import { Button } from '../../design/Button';
import { Card } from '../../design/Card';
import { bytes, plural } from '../../lib/format';
import { forget, type Sending } from '../../state/uploads';

export function Uploading({ sending }: { sending: Sending }) {
  const over = sending.done === sending.files;
  return (
    <Card className="flex flex-col gap-3 p-4">
      {!over && (
        <>
          <p className="flex justify-between gap-4 text-sm">
            <span>
              Uploading {plural(sending.files, 'file')}, {sending.done} done
            </span>
            <span className="text-soft tabular-nums">
              {bytes(sending.sent)} of {bytes(sending.bytes)}
            </span>
          </p>
          <Meter value={sending.bytes ? sending.sent / sending.bytes : null} label="Uploading" />
          <p className="text-xs text-soft">
            Keep this page open. If the connection breaks, it goes on where it was.
          </p>
        </>
      )}
      {sending.failed.length > 0 && (
        <div role="alert" className="flex flex-col gap-2 text-sm">
          <p className="font-medium text-bad">{plural(sending.failed.length, 'file')} did not arrive:</p>
          <ul className="max-h-40 overflow-auto text-xs">
            {sending.failed.map(({ name, why }) => (
              <li key={name}>
                <span className="font-medium">{name}</span>: {why}
              </li>
            ))}
          </ul>
          {over && (
            <Button small className="self-start" onClick={() => forget(sending.project)}>
              Go on without {sending.failed.length === 1 ? 'it' : 'them'}
            </Button>
          )}
        </div>
      )}
    </Card>
  );
}
