"""OpenUSD: no findings of its validators, and the stage holds the written data."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph.formats import usd
from lumigraph.scene.assets import Mesh, Points, Splats
from lumigraph.scene.errors import FormatError
from tests.formats.test_ply import make_points, make_splats

pxr = pytest.importorskip("pxr", reason="usd-core is not installed")
from pxr import Sdf, Usd, UsdGeom, UsdShade, UsdValidation, UsdVol  # noqa: E402

SUFFIXES = (".usdz", ".usdc", ".usda", ".usd")


def make_textured_mesh() -> Mesh:
    """A square of two triangles with a texture of four colours: red and green above, blue and white below."""
    picture = torch.zeros(8, 16, 3, dtype=torch.uint8)
    picture[:4, :8, 0] = picture[:4, 8:, 1] = picture[4:, :8, 2] = 255
    picture[4:, 8:] = 255
    corners = torch.tensor([[0.0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]])  # from bottom left, counter-clockwise
    uv = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    normals = torch.tensor([[0.0, 0, 1]]).repeat(4, 1)
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32), normals, uv, None, picture)


def make_coloured_points() -> Mesh:
    rgb = torch.tensor([[0, 0, 0], [255, 0, 0], [0, 255, 0], [255, 128, 1]], dtype=torch.uint8)
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], dtype=torch.int32)
    return Mesh(vertices, faces, rgb=rgb)


def open_stage(path: Path) -> Any:
    """Open a stage and check that the validators find nothing."""
    stage = Usd.Stage.Open(str(path))
    context = UsdValidation.ValidationContext(UsdValidation.ValidationRegistry().GetOrLoadAllValidators())
    assert [(str(e.GetName()), e.GetMessage()) for e in context.Validate(stage)] == []
    assert stage.GetDefaultPrim().GetPath() == "/scene"
    return stage


def values(attribute: Any) -> Any:
    return np.array(attribute.Get())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_usd_gaussians(tmp_path: Path, suffix: str, degree: int) -> None:
    splats = make_splats(200, degree)
    usd.write(splats, tmp_path / f"a{suffix}")
    assert [file.name for file in tmp_path.iterdir()] == [f"a{suffix}"]
    stage = open_stage(tmp_path / f"a{suffix}")
    prim = UsdVol.ParticleField3DGaussianSplat(stage.GetPrimAtPath("/scene/splats"))
    means = splats.means.numpy()
    scales = splats.log_scales.double().exp().numpy()
    assert np.array_equal(values(prim.GetPositionsAttr()), means)
    assert np.allclose(values(prim.GetScalesAttr()), scales, rtol=1e-6)
    assert np.allclose(values(prim.GetOpacitiesAttr()), splats.logit_opacities.sigmoid().numpy(), atol=1e-7)
    assert prim.GetRadianceSphericalHarmonicsDegreeAttr().Get() == degree
    coefficients = prim.GetRadianceSphericalHarmonicsCoefficientsAttr()
    assert coefficients.GetMetadata("elementSize") == (degree + 1) ** 2
    assert np.array_equal(values(coefficients), splats.sh.numpy().reshape(-1, 3))
    quats = torch.nn.functional.normalize(splats.quats.double(), dim=1).numpy()
    stored_values = [(q.GetReal(), *q.GetImaginary()) for q in prim.GetOrientationsAttr().Get()]
    assert np.allclose(stored_values, quats, atol=1e-6)
    reach = 3 * scales.max(axis=1, keepdims=True)
    assert np.allclose(values(prim.GetExtentAttr()), [(means - reach).min(axis=0), (means + reach).max(axis=0)])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("parts", [(), ("rgb", "normals")])
def test_usd_points(tmp_path: Path, suffix: str, parts: tuple[str, ...]) -> None:
    full = make_points(300)
    points = Points(full.xyz, **{name: getattr(full, name) for name in parts})
    usd.write(points, tmp_path / f"a{suffix}")
    stage = open_stage(tmp_path / f"a{suffix}")
    prim = UsdGeom.Points(stage.GetPrimAtPath("/scene/points"))
    assert np.array_equal(values(prim.GetPointsAttr()), points.xyz.numpy())
    (width,) = prim.GetWidthsAttr().Get()
    assert prim.GetWidthsInterpolation() == "constant"
    nearest = torch.cdist(full.xyz, full.xyz).fill_diagonal_(torch.inf).amin(dim=1).median()
    assert 0.2 < width / float(nearest) < 5
    bounds = points.bounds().numpy()
    assert np.allclose(values(prim.GetExtentAttr()), bounds + np.array([[-width / 2], [width / 2]]), atol=1e-6)
    if not parts:
        assert not prim.GetDisplayColorAttr().IsAuthored() and not prim.GetNormalsAttr().IsAuthored()
        return
    assert full.normals is not None
    assert np.array_equal(values(prim.GetNormalsAttr()), full.normals.numpy())
    assert_linear(values(prim.GetDisplayColorAttr()), full)


def assert_linear(stored_values: Any, asset: Points | Mesh) -> None:
    """The formula of IEC 61966-2-1, value by value."""
    assert asset.rgb is not None
    light = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in asset.rgb.flatten().double() / 255]
    assert np.allclose(stored_values.reshape(-1), light, atol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_usd_mesh_texture_orientation(tmp_path: Path, suffix: str) -> None:
    """Look up the colour of each corner in the texture of the stage, with v from the bottom row."""
    mesh, path = make_textured_mesh(), tmp_path / f"a b{suffix}"
    usd.write(mesh, path)
    stage = open_stage(path)
    prim = UsdGeom.Mesh(stage.GetPrimAtPath("/scene/mesh"))
    assert np.array_equal(values(prim.GetPointsAttr()), mesh.vertices.numpy())
    assert np.array_equal(values(prim.GetNormalsAttr()), mesh.normals.numpy())  # type: ignore[union-attr]
    assert values(prim.GetFaceVertexCountsAttr()).tolist() == [3, 3]
    assert values(prim.GetFaceVertexIndicesAttr()).tolist() == [0, 1, 2, 0, 2, 3]
    assert prim.GetSubdivisionSchemeAttr().Get() == "none"
    material = UsdShade.MaterialBindingAPI(prim.GetPrim()).ComputeBoundMaterial()[0]
    surface = material.ComputeSurfaceSource()[0]
    assert surface.GetIdAttr().Get() == "UsdPreviewSurface"
    picture = UsdShade.Shader(surface.GetInput("diffuseColor").GetConnectedSources()[0][0].source.GetPrim())
    asset = picture.GetInput("file").Get()
    if suffix == ".usdz":
        with zipfile.ZipFile(path) as archive:
            assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
            (name,) = [name for name in archive.namelist() if name.endswith(".png")]
            data = archive.read(name)
        assert asset.resolvedPath == f"{path}[{name}]"
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
    else:
        assert Path(asset.resolvedPath).parent == tmp_path and asset.path.startswith("./a_b-")
        assert sorted(file.suffix for file in tmp_path.iterdir()) == sorted([".png", suffix])
        data = Path(asset.resolvedPath).read_bytes()
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert mesh.texture is not None and np.array_equal(pixels, mesh.texture.numpy())
    st = values(UsdGeom.PrimvarsAPI(prim).GetPrimvar("st"))
    u, v = (st * 0.98 + 0.01).T
    colours_seen = pixels[((1 - v) * 8).astype(int), (u * 16).astype(int)]
    assert colours_seen.tolist() == [[0, 0, 255], [255, 255, 255], [0, 255, 0], [255, 0, 0]]


def test_usd_mesh_colours(tmp_path: Path) -> None:
    mesh = make_coloured_points()
    usd.write(mesh, tmp_path / "a.usdc")
    stage = open_stage(tmp_path / "a.usdc")
    prim = UsdGeom.Mesh(stage.GetPrimAtPath("/scene/mesh"))
    assert prim.GetDisplayColorPrimvar().GetInterpolation() == "vertex"
    assert_linear(values(prim.GetDisplayColorAttr()), mesh)


@pytest.mark.parametrize(("up", "unit", "metres"), [("y", "m", 1), ("z", "cm", 0.01), ("z", "mm", 0.001)])
def test_usd_up_axis_and_unit(tmp_path: Path, up: Any, unit: Any, metres: float) -> None:
    usd.write(make_coloured_points(), tmp_path / "a.usdz", usd.Options(up=up, unit=unit))
    stage = open_stage(tmp_path / "a.usdz")
    assert UsdGeom.GetStageUpAxis(stage) == up.upper()
    assert UsdGeom.GetStageMetersPerUnit(stage) == metres


def test_usd_suffix_selects_format(tmp_path: Path) -> None:
    starts = {".usda": b"#usda 1.0", ".usdc": b"PXR-USDC", ".usd": b"PXR-USDC", ".usdz": b"PK\x03\x04"}
    for suffix, start in starts.items():
        usd.write(make_points(), tmp_path / f"a{suffix.upper()}")
        assert (tmp_path / f"a{suffix.upper()}").read_bytes().startswith(start)


def test_usd_overwrite_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.usda"
    usd.write(make_textured_mesh(), path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    new_mesh = make_textured_mesh()
    assert new_mesh.texture is not None
    new_mesh.texture.fill_(7)
    with monkeypatch.context() as patch, pytest.raises(FormatError, match="not written"):
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        usd.write(new_mesh, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    usd.write(new_mesh, path)
    (asset,) = [line for line in path.read_text().splitlines() if ".png@" in line]
    name = asset.split("@")[1].removeprefix("./")
    assert name not in before and np.asarray(Image.open(tmp_path / name)).max() == 7


def test_usd_rejects_wrong_array_lengths() -> None:
    """UsdValidation does not check array lengths, so our own check is tested on faulty stages."""
    for path, attribute, kind, length in [
        ("/scene/splats", "scales", Sdf.ValueTypeNames.Float3Array, 3),
        ("/scene/splats", "radiance:sphericalHarmonicsCoefficients", Sdf.ValueTypeNames.Float3Array, 5),
        ("/scene/splats", "extent", Sdf.ValueTypeNames.Float3Array, 1),
    ]:
        stage = Usd.Stage.CreateInMemory()
        prim = UsdVol.ParticleField3DGaussianSplat.Define(stage, path)
        prim.CreatePositionsAttr([(0, 0, 0)] * 4)
        prim.GetPrim().CreateAttribute(attribute, kind).Set([(1, 1, 1)] * length)
        with pytest.raises(FormatError, match=f"{attribute} has {length} values for 4"):
            usd._check_lengths(stage, Path("a.usdc"))


def test_usd_rejects_unwritable_assets(tmp_path: Path) -> None:
    nan, flat, huge = make_splats(3), make_splats(3), make_splats(3)
    nan.means[1, 1] = math.nan
    flat.quats[2] = 0
    huge.log_scales[0, 0] = 80
    empty = Points(torch.zeros(0, 3))
    lone = Mesh(torch.zeros(1, 3), torch.zeros(0, 3, dtype=torch.int32))
    infinite = make_textured_mesh()
    assert infinite.uv is not None
    infinite.uv[0, 0] = math.inf
    for asset, message in [
        (nan, "1 of 3 means hold NaN"),
        (flat, "1 of 3 gaussians have a rotation of zero"),
        (huge, "scale above"),
        (empty, "asset is empty"),
        (lone, "asset is empty"),
        (infinite, "uv hold NaN or infinity"),
    ]:
        with pytest.raises(FormatError, match=message):
            usd.write(asset, tmp_path / "a.usdz")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="not Tensor"):
        usd.write(torch.zeros(3), tmp_path / "a.usdz")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="not written"):
        usd.write(make_points(), tmp_path / "no folder" / "a.usdz")
    assert not list(tmp_path.iterdir())


def test_usd_rejects_usdz_beyond_4_gb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usd, "USDZ_MAX_BYTES", 5000)
    with pytest.raises(FormatError, match=r"less than 4 GB; choose \.usdc"):
        usd.write(make_splats(200), tmp_path / "a.usdz")
    usd.write(make_splats(200), tmp_path / "a.usdc")
    assert [file.name for file in tmp_path.iterdir()] == ["a.usdc"]


def test_usd_missing_package_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(FormatError, match="needs the package usd-core"):
        usd.write(make_points(), tmp_path / "a.usdz")


def test_usd_import_is_lazy() -> None:
    code = "import sys; import lumigraph.formats.usd; sys.exit('pxr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_usd_single_gaussian(tmp_path: Path) -> None:
    splat = Splats(
        torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([[2.0, 0, 0, 0]]), torch.zeros(1), torch.ones(1, 1, 3)
    )
    usd.write(splat, tmp_path / "a.usdz")
    usd.write(Points(torch.zeros(1, 3)), tmp_path / "b.usdz")
    first, second = open_stage(tmp_path / "a.usdz"), open_stage(tmp_path / "b.usdz")
    assert values(first.GetAttributeAtPath("/scene/splats.extent")).tolist() == [[-3] * 3, [3] * 3]
    assert second.GetAttributeAtPath("/scene/points.widths").Get()[0] > 0
