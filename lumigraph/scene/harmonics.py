"""Real spherical harmonics in the order and with the signs of 3D Gaussian Splatting files (Kerbl et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

C0 = 0.28209479177387814  # Y_00; a gaussian's view-independent colour is C0 * dc + 0.5


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """(..., 3) unit directions -> (..., (degree + 1)^2) basis values, degree 0..3."""
    if not 0 <= degree <= 3:
        raise ValueError(f"spherical harmonics go from degree 0 to 3, not {degree}")
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    values = [torch.full_like(x, C0)]
    if degree > 0:
        c1 = 0.4886025119029199
        values += [-c1 * y, c1 * z, -c1 * x]
    if degree > 1:
        values += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree > 2:
        values += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(values, dim=-1)


def rotate_sh(sh: Tensor, rotation: Tensor) -> Tensor:
    """Rotate (N, K, 3) coefficients of a scene by `rotation` (3, 3).

    The rotated colour along d is the original colour along R^T d. Each degree rotates within itself. Its matrix follows
    from the basis at a few fixed directions by least squares, which here is exact.
    """
    degree = round(sh.shape[1] ** 0.5) - 1
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(64, 3, generator=generator, dtype=torch.float64), dim=1)
    before = sh_basis(directions @ rotation.detach().cpu().double(), degree)
    after = sh_basis(directions, degree)
    bands = [sh[:, :1]]
    for band in range(1, degree + 1):
        of = slice(band**2, (band + 1) ** 2)
        turn = torch.linalg.lstsq(after[:, of], before[:, of]).solution
        bands.append(turn.to(sh) @ sh[:, of])
    return torch.cat(bands, dim=1)
