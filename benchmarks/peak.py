"""Peak rate of fused multiply-adds on this machine. The kernel benchmark reports fractions of it."""

from collections.abc import Iterator

from lumigraph.kernels import native, splatting


def measure(threads: int, seconds: float = 0.5) -> float:
    """Measure GFLOP/s of independent fused multiply-adds in registers, an FMA counted as two, on `threads` threads."""
    previous_threads = splatting.threads()
    splatting.set_threads(threads)
    try:
        return float(splatting.fma_peak(seconds))
    finally:
        splatting.set_threads(previous_threads)


def rows() -> Iterator[dict[str, object]]:
    """Yield a row for each power of two of threads, up to the number that the kernels use."""
    max_threads = splatting.threads()
    for threads in sorted({1, max_threads} | {2**i for i in range(max_threads.bit_length()) if 2**i <= max_threads}):
        yield {"case": f"{threads} threads", "isa": native.isa, "gflops": round(measure(threads), 1)}
