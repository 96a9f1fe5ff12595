"""The compiled module for this processor: AVX-512 or AVX2 where it has them, else plain 4-lane vectors (SSE2, NEON).

`LUMIGRAPH_ISA=base|v3|v4` overrules the choice; asking for what the processor lacks is an error, never an illegal
instruction.
"""

import importlib
import os
from types import ModuleType

ISA_LEVELS = ("v4", "v3", "base")  # best first


def _load() -> tuple[str, ModuleType]:
    base = importlib.import_module(f"{__package__}._native_base")

    wanted = os.environ.get("LUMIGRAPH_ISA")
    if wanted and (wanted not in ISA_LEVELS or not base.cpu_supports(wanted)):
        raise ImportError(
            f"LUMIGRAPH_ISA={wanted}: this processor runs {[x for x in ISA_LEVELS if base.cpu_supports(x)]}"
        )
    for level in [wanted] if wanted else ISA_LEVELS:
        if not base.cpu_supports(level):
            continue
        try:
            return level, importlib.import_module(f"{__package__}._native_{level}")
        except ModuleNotFoundError:  # a build for another architecture has no such module
            if wanted:
                raise
    raise ImportError("no compiled kernels for this processor")


isa, native = _load()
