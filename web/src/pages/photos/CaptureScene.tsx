// Cameras as clickable frustums among the triangulated points.

import { OrbitControls } from '@react-three/drei';
import { Canvas, type ThreeEvent, useLoader, useThree } from '@react-three/fiber';
import { Suspense, useEffect, useMemo, useState } from 'react';
import { BufferAttribute, BufferGeometry, Matrix4, Vector3 } from 'three';
import { PLYLoader } from 'three/examples/jsm/loaders/PLYLoader.js';

import { type Capture, captureFile, type CaptureImage } from '../../api/previews';
import { baseName } from './PhotoGrid';

interface SceneProps {
  project: string;
  capture: Capture;
  selected: string | null;
  onChoose: (name: string) => void;
}

export function CaptureScene({ project, capture, selected, onChoose }: SceneProps) {
  const { centre, size, eye, up } = useMemo(() => overviewView(capture), [capture]);
  const [hovered, setHovered] = useState<string | null>(null);
  return (
    <div className="relative h-80 overflow-hidden rounded-lg bg-raised sm:h-[26rem]">
      <Canvas
        frameloop="demand"
        dpr={[1, 2]}
        camera={{ position: eye, up, fov: 45, near: size / 500, far: size * 50 }}
        role="img"
        aria-label="Cameras and points"
      >
        <OrbitControls makeDefault target={centre} />
        {capture.points && (
          <Suspense fallback={null}>
            <Points url={captureFile(project, capture.points)} size={size / 400} />
          </Suspense>
        )}
        {capture.images.map((image) => (
          <Frustum
            key={image.name}
            image={image}
            depth={size / 14}
            highlighted={
              image.name === hovered || (selected !== null && baseName(image.name) === baseName(selected))
            }
            onOver={setHovered}
            onChoose={onChoose}
          />
        ))}
      </Canvas>
      {hovered && (
        <span className="pointer-events-none absolute bottom-2 left-2 rounded bg-surface px-2 py-1 text-xs">
          {hovered}
        </span>
      )}
    </div>
  );
}

function Points({ url, size }: { url: string; size: number }) {
  const geometry = useLoader(PLYLoader, url);
  const invalidate = useThree((state) => state.invalidate);
  useEffect(() => invalidate(), [geometry, invalidate]);
  return (
    <points geometry={geometry}>
      <pointsMaterial vertexColors size={size} sizeAttenuation />
    </points>
  );
}

function Frustum({
  image,
  depth,
  highlighted,
  onOver,
  onChoose,
}: {
  image: CaptureImage;
  depth: number;
  highlighted: boolean;
  onOver: (name: string | null) => void;
  onChoose: (name: string) => void;
}) {
  const geometry = useMemo(() => frustumGeometry(image, depth), [image, depth]);
  useEffect(() => () => geometry.dispose(), [geometry]);
  const stop = (event: ThreeEvent<PointerEvent>) => {
    event.stopPropagation();
    onOver(image.name);
  };
  const colour = highlighted ? '#f5b83d' : image.held_out ? '#5b9bd5' : '#8a8378';
  return (
    <group>
      <lineSegments geometry={geometry}>
        <lineBasicMaterial color={colour} />
      </lineSegments>
      <mesh
        position={cameraCentre(image)}
        onPointerOver={stop}
        onPointerOut={() => onOver(null)}
        onClick={(event) => {
          event.stopPropagation();
          onChoose(image.name);
        }}
      >
        <sphereGeometry args={[depth / 2.5, 8, 6]} />
        <meshBasicMaterial transparent opacity={0} depthWrite={false} />
      </mesh>
    </group>
  );
}

/** The eight edges of a frustum, in world space. The camera looks along +z, +y is down. */
function frustumGeometry(image: CaptureImage, depth: number): BufferGeometry {
  const [fx, fy] = image.focal;
  const [cx, cy] = image.centre;
  const pose = matrix(image);
  const corner = (u: number, v: number) =>
    new Vector3(((u - cx) / fx) * depth, ((v - cy) / fy) * depth, depth).applyMatrix4(pose);
  const eye = cameraCentre(image);
  const corners = [
    corner(0, 0),
    corner(image.width, 0),
    corner(image.width, image.height),
    corner(0, image.height),
  ];
  const lines = corners.flatMap((from, k) => [eye, from, from, corners[(k + 1) % 4] ?? from]);
  const geometry = new BufferGeometry();
  geometry.setAttribute(
    'position',
    new BufferAttribute(new Float32Array(lines.flatMap((point) => point.toArray())), 3),
  );
  return geometry;
}

const matrix = (image: CaptureImage): Matrix4 => {
  const rows = image.world_from_cam.slice(0, 3).flat();
  return new Matrix4().set(
    ...(rows as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ]),
    0,
    0,
    0,
    1,
  );
};
const cameraCentre = (image: CaptureImage): Vector3 => new Vector3().setFromMatrixPosition(matrix(image));

/** A viewpoint that shows all cameras: outside, a little above. */
function overviewView(capture: Capture) {
  const centres = capture.images.map(cameraCentre);
  const up = new Vector3(...capture.up).normalize();
  const centre = centres
    .reduce((sum, position) => sum.add(position), new Vector3())
    .divideScalar(Math.max(1, centres.length));
  const size = 2 * Math.max(1e-6, ...centres.map((position) => position.distanceTo(centre)));
  const first = centres[0] ?? new Vector3(1, 0, 0);
  const aside = first.clone().sub(centre).projectOnPlane(up).normalize();
  if (aside.lengthSq() < 0.5) aside.set(1, 0, 0).projectOnPlane(up).normalize();
  const eye = centre
    .clone()
    .addScaledVector(aside, 1.1 * size)
    .addScaledVector(up, 0.7 * size);
  return { centre, size, eye, up };
}
