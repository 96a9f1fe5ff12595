#pragma once
namespace lumi {
double fma_peak(double seconds);  // GFLOP/s of all threads of the pool together
}
