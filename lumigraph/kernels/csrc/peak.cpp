// Peak arithmetic rate of the machine: independent fused multiply-adds on all threads, without memory access.
// Benchmarks report fractions of it.
#include "peak.h"

#include <chrono>
#include <vector>

#include "lanes.h"
#include "pool.h"

namespace lumi {
namespace {

double fma_rate(double seconds, float seed) {  // GFLOP/s of one thread
    constexpr int CHAINS = 12, ROUND = 4096;
    vf a[CHAINS];
    for (int j = 0; j < CHAINS; j++) a[j] = spread(1.f + seed * j);
    const vf m = spread(0.999f), c = spread(0.001f);
    auto start = std::chrono::steady_clock::now();
    long rounds = 0;
    double elapsed;
    do {
        for (int i = 0; i < ROUND; i++)
            for (auto& x : a) x = x * m + c;
        rounds++;
        elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    } while (elapsed < seconds);
    vf total{};
    for (auto& x : a) total += x;
    volatile float sink = sum(total);
    (void)sink;
    return 2.0 * VL * CHAINS * ROUND * rounds / elapsed * 1e-9;
}

}  // namespace

double fma_peak(double seconds) {
    Pool& pool = Pool::shared();
    std::vector<double> rates(pool.threads());
    parallel(pool.threads(), [&](int t) { rates[t] = fma_rate(seconds, 0.01f); });
    double total = 0;
    for (double r : rates) total += r;
    return total;
}

}  // namespace lumi
