// The scene in this browser: splats drawn by Spark, a frame whenever something changed and none otherwise.

import { Canvas, useFrame, useThree } from '@react-three/fiber';
import { useEffect, useState } from 'react';

import type { ShownRun } from '../../api/previews';
import { middleOf, reachOf } from '../../geometry/camera';
import type { Box } from '../../geometry/cropBox';
import type { Eyes } from './viewerHandle';
import type { Rig } from './cameraControls';
import type { Look } from './splatStyle';
import { type Loading, SplatStage } from './splatScene';

export interface SplatViewProps {
  rig: Rig;
  name: string;
  parts: string[]; // addresses
  look: Look;
  asleep: boolean; // something else is on the screen
  all: boolean; // of a large scene, however slow that is
  crop: Box | null;
  box: ShownRun['box'];
  antialiased: boolean;
  onLoading: (loading: Loading) => void;
  onEyes: (eyes: Eyes | null) => void;
}

export default function SplatView(props: SplatViewProps) {
  return (
    <Canvas
      camera={props.rig.camera}
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
  rig,
  name,
  parts,
  look,
  asleep,
  all,
  crop,
  box,
  antialiased,
  onLoading,
  onEyes,
}: SplatViewProps) {
  const { gl, scene, invalidate } = useThree();
  const [stage, setStage] = useState<SplatStage | null>(null);

  useEffect(() => {
    const made = new SplatStage(gl, scene, invalidate, onLoading, antialiased);
    setStage(made);
    return () => made.dispose();
  }, [gl, scene, invalidate, onLoading, antialiased]);

  // eslint-disable-next-line react-hooks/exhaustive-deps -- parts of one name are the same
  useEffect(() => stage?.want({ name, parts }), [stage, name]);
  useEffect(() => {
    if (all) stage?.all();
  }, [stage, all]);
  useEffect(() => stage?.look(look), [stage, look]);
  useEffect(() => stage?.crop(crop), [stage, crop]);
  useEffect(() => {
    if (asleep) return;
    invalidate();
    return rig.listen(() => invalidate());
  }, [rig, invalidate, asleep]);

  useEffect(() => {
    if (!stage || asleep) return;
    onEyes({
      pick: (x, y) => stage.pick(x, y, rig.camera),
      draw: () => {
        gl.render(scene, rig.camera); // a canvas keeps its picture only until it is on the screen
        return gl.domElement;
      },
    });
    return () => onEyes(null);
  }, [stage, rig, gl, scene, asleep, onEyes]);

  useFrame(() => stage?.stand(rig.camera, middleOf(box), reachOf(box)));
  return null;
}
