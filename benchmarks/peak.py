"""The fused multiply-adds that this machine can do: what the kernels' figures are fractions of."""

from collections.abc import Iterator

from lumigraph.kernels import native, splatting


def measure(threads: int, seconds: float = 0.5) -> float:
    """GFLOP/s of independent fused multiply-adds in registers, an FMA counted as two, on `threads` threads."""
    before = splatting.threads()
    splatting.set_threads(threads)
    try:
        return float(splatting.fma_peak(seconds))
    finally:
        splatting.set_threads(before)


def rows() -> Iterator[dict[str, object]]:
    """One row for each power of two of threads, up to all that the kernels use."""
    most = splatting.threads()
    for threads in sorted({1, most} | {2**i for i in range(most.bit_length()) if 2**i <= most}):
        yield {"case": f"{threads} threads", "isa": native.isa, "gflops": round(measure(threads), 1)}
