// The scene in this browser: splats drawn by Spark, a frame for each change and none otherwise.

import { Canvas, useFrame, useThree } from '@react-three/fiber';
import { useEffect, useState } from 'react';

import type { RunPreview } from '../../api/previews';
import { boxCentre, boxDiagonal } from '../../geometry/camera';
import type { Box } from '../../geometry/cropBox';
import type { ViewerHandle } from './viewerHandle';
import type { CameraControls } from './cameraControls';
import type { Look } from './splatStyle';
import { type Loading, SplatScene } from './splatScene';

export interface SplatViewProps {
  controls: CameraControls;
  name: string;
  parts: string[]; // addresses
  look: Look;
  asleep: boolean; // the server's render is on the screen
  all: boolean; // draw all parts of a large scene, on slow devices too
  crop: Box | null;
  box: RunPreview['box'];
  antialiased: boolean;
  onLoading: (loading: Loading) => void;
  onHandle: (handle: ViewerHandle | null) => void;
}

export default function SplatView(props: SplatViewProps) {
  return (
    <Canvas
      camera={props.controls.camera}
      frameloop="demand"
      flat
      dpr={[1, 2]}
      gl={{ antialias: false, alpha: true }}
      aria-hidden
    >
      <Splats {...props} />
    </Canvas>
  );
}

function Splats({
  controls,
  name,
  parts,
  look,
  asleep,
  all,
  crop,
  box,
  antialiased,
  onLoading,
  onHandle,
}: SplatViewProps) {
  const { gl, scene, invalidate } = useThree();
  const [stage, setStage] = useState<SplatScene | null>(null);

  useEffect(() => {
    const splatScene = new SplatScene(gl, scene, invalidate, onLoading, antialiased);
    setStage(splatScene);
    return () => splatScene.dispose();
  }, [gl, scene, invalidate, onLoading, antialiased]);

  // eslint-disable-next-line react-hooks/exhaustive-deps -- equal names mean equal parts
  useEffect(() => stage?.load({ name, parts }), [stage, name]);
  useEffect(() => {
    if (all) stage?.drawAll();
  }, [stage, all]);
  useEffect(() => stage?.setLook(look), [stage, look]);
  useEffect(() => stage?.crop(crop), [stage, crop]);
  useEffect(() => {
    if (asleep) return;
    invalidate();
    return controls.listen(() => invalidate());
  }, [controls, invalidate, asleep]);

  useEffect(() => {
    if (!stage || asleep) return;
    onHandle({
      pick: (x, y) => stage.pick(x, y, controls.camera),
      draw: () => {
        gl.render(scene, controls.camera); // WebGL clears the canvas after each presented frame
        return gl.domElement;
      },
    });
    return () => onHandle(null);
  }, [stage, controls, gl, scene, asleep, onHandle]);

  useFrame(() => stage?.beforeFrame(controls.camera, boxCentre(box), boxDiagonal(box)));
  return null;
}
