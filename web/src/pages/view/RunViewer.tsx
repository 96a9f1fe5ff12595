// The viewer of a run: scene, toolbar, camera path and panels.

import { lazy, Suspense, useEffect, useRef, useState } from 'react';

import type { RunPreview } from '../../api/previews';
import { runFile } from '../../api/previews';
import { ProgressBar } from '../../design/ProgressBar';
import { showMessage } from '../../design/Toasts';
import { fitView, fromHash } from '../../geometry/camera';
import type { Box } from '../../geometry/cropBox';
import { CropPanel } from './CropPanel';
import type { ViewerHandle } from './viewerHandle';
import { VideoDialog } from './VideoDialog';
import type { Output } from './liveConnection';
import { type Background, DisplayPanel, type Display } from './DisplayPanel';
import { MeasureLine } from './MeasureLine';
import { MeasurePanel } from './MeasurePanel';
import { PathStrip } from './PathStrip';
import type { CameraControls } from './cameraControls';
import { ServerView } from './ServerView';
import type { Look } from './splatStyle';
import type { Loading } from './splatScene';
import { toggleFullScreen, Toolbar } from './Toolbar';
import { useMeasure } from './useMeasure';
import { usePath } from './useCameraPath';
import { useCameraControls } from './useCameraControls';
import { Viewport } from './Viewport';

const SplatView = lazy(() => import('./SplatView'));

export interface RunViewerProps {
  project: string;
  run: string;
  preview: RunPreview;
  antialiased: boolean;
}

export function RunViewer(props: RunViewerProps) {
  const controls = useCameraControls(props.run, props.preview);
  return controls && <Viewer {...props} controls={controls} />;
}

const canDraw = (() => {
  let supported: boolean | undefined;
  return () => (supported ??= document.createElement('canvas').getContext('webgl2') !== null);
})();

function Viewer({
  project,
  run,
  preview,
  antialiased,
  controls,
}: RunViewerProps & { controls: CameraControls }) {
  const browserDraws = preview.parts.length > 0 && canDraw();
  const [selected, setSelected] = useState<Display>('splats');
  const display: Display = browserDraws || selected.startsWith('server-') ? selected : 'server-rgb';
  const byServer = display.startsWith('server-') ? (display.slice('server-'.length) as Output) : null;
  const [background, setBackground] = useState<Background>('black');
  const [crop, setCrop] = useState<Box | null>(null);
  const [loading, setLoading] = useState<Loading>({ state: 'loading', part: 0 });
  const [all, setAll] = useState(false);
  const [status, setStatus] = useState<string | null>(null);
  const [splatHandle, setSplatHandle] = useState<ViewerHandle | null>(null);
  const [serverHandle, setServerHandle] = useState<ViewerHandle | null>(null);
  const handle = byServer ? serverHandle : splatHandle;
  const [videoOpen, setVideoOpen] = useState(false);
  const measure = useMeasure(project);
  const path = usePath(run, controls, handle, background);
  const screen = useRef<HTMLDivElement>(null);
  const reset = () => controls.glide(fitView(preview.start, controls.camera.aspect));
  useEffect(() => {
    if (!fromHash(location.hash)) controls.view = fitView(controls.view, controls.camera.aspect);
  }, [controls]);

  const pick = (x: number, y: number) => {
    const point = handle?.pick(x, y);
    if (point) measure.add(point);
    else showMessage('No surface at this point.');
  };
  const key = (name: string) => {
    if (name === 'r') reset();
    else if (name === 'f') toggleFullScreen(screen.current);
    else return false;
    return true;
  };

  return (
    <div className="flex flex-1 flex-col lg:h-[calc(100dvh-9.5rem)] lg:min-h-120 lg:flex-none lg:flex-row">
      <div className="flex min-w-0 flex-1 flex-col">
        <div ref={screen} className="relative h-[58dvh] min-h-80 lg:h-auto lg:flex-1">
          <Viewport
            controls={controls}
            picking={measure.on && !byServer}
            onPick={pick}
            onKey={key}
            className={`absolute inset-0 ${background === 'black' ? 'bg-black' : 'bg-white'}`}
          >
            {browserDraws && (
              <div className={`absolute inset-0 ${byServer ? 'invisible' : ''}`}>
                <Suspense fallback={null}>
                  <SplatView
                    controls={controls}
                    name={`${run} ${preview.step} ${preview.parts[0]}`}
                    parts={preview.parts.map((part) => runFile(project, run, part))}
                    all={all}
                    look={byServer ? 'splats' : (display as Look)}
                    asleep={byServer !== null}
                    crop={crop}
                    box={preview.box}
                    antialiased={antialiased}
                    onLoading={setLoading}
                    onHandle={setSplatHandle}
                  />
                </Suspense>
              </div>
            )}
            {byServer && (
              <ServerView
                controls={controls}
                project={project}
                run={run}
                output={byServer}
                onStatus={setStatus}
                onHandle={setServerHandle}
              />
            )}
            {measure.on && !byServer && <MeasureLine controls={controls} measure={measure} />}
          </Viewport>
          <Notice loading={byServer ? null : loading} status={byServer ? status : null} />
          <Toolbar
            controls={controls}
            run={run}
            handle={handle}
            background={background}
            screen={screen}
            measuring={byServer ? null : measure.on}
            onMeasure={measure.toggle}
            onReset={reset}
          />
        </div>
        <PathStrip path={path} onRender={() => setVideoOpen(true)} />
      </div>
      <aside
        aria-label="View settings"
        className="flex flex-col gap-3 border-line p-3 lg:w-80 lg:overflow-y-auto lg:border-l"
      >
        {preview.parts.length > 0 && !browserDraws && (
          <p className="text-sm text-soft">
            This browser has no WebGL 2, so the server renders the scene. WebGL may be switched off.
          </p>
        )}
        <DisplayPanel
          preview={browserDraws ? preview : { ...preview, parts: [] }}
          left={loading.state === 'ready' ? loading.left : 0}
          onAll={() => setAll(true)}
          display={display}
          onDisplay={setSelected}
          background={background}
          onBackground={setBackground}
        />
        {!byServer && (
          <>
            <MeasurePanel measure={measure} />
            <CropPanel box={preview.box} crop={crop} onCrop={setCrop} />
          </>
        )}
      </aside>
      <VideoDialog
        project={project}
        run={run}
        keys={path.keys}
        open={videoOpen}
        onClose={() => setVideoOpen(false)}
      />
    </div>
  );
}

/** Loading progress or an error, over the scene. */
function Notice({ loading, status }: { loading: Loading | null; status: string | null }) {
  const failed = loading?.state === 'failed' ? loading.text : null;
  const text = status ?? failed ?? (loading?.state === 'loading' ? 'Loading the scene …' : null);
  if (text === null) return null;
  return (
    <div className="pointer-events-none absolute inset-x-4 top-1/3 flex justify-center">
      <div
        role={failed ? 'alert' : 'status'}
        className="flex min-w-52 flex-col gap-2 rounded-card border border-line bg-surface px-4 py-3 text-center text-sm shadow-lg"
      >
        {failed ? `The scene cannot be shown. ${failed}` : text}
        {loading?.state === 'loading' && <ProgressBar value={loading.part || null} label={text} />}
      </div>
    </div>
  );
}
