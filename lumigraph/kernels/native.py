"""The compiled module for this processor: AVX-512, else AVX2, else plain 4-lane vectors (SSE2, NEON).

`LUMIGRAPH_ISA=base|v3|v4` overrides the choice. An instruction set that the processor lacks raises ImportError instead
of executing an illegal instruction.
"""

import importlib
import os
from types import ModuleType

ISA_LEVELS = ("v4", "v3", "base")  # fastest first


def _load() -> tuple[str, ModuleType]:
    base = importlib.import_module(f"{__package__}._native_base")

    requested_isa = os.environ.get("LUMIGRAPH_ISA")
    if requested_isa and (requested_isa not in ISA_LEVELS or not base.cpu_supports(requested_isa)):
        supported_levels = [level for level in ISA_LEVELS if base.cpu_supports(level)]
        raise ImportError(f"LUMIGRAPH_ISA={requested_isa}: this processor runs {supported_levels}")
    for level in [requested_isa] if requested_isa else ISA_LEVELS:
        if not base.cpu_supports(level):
            continue
        try:
            return level, importlib.import_module(f"{__package__}._native_{level}")
        except ModuleNotFoundError:  # builds for other architectures have only the base module
            if requested_isa:
                raise
    raise ImportError("no compiled kernels for this processor")


isa, native = _load()
