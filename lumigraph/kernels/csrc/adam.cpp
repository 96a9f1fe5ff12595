#include "adam.h"

#include <algorithm>
#include <cmath>

#include "pool.h"
#include "sample.h"

namespace lumi {

void adam(long n, float* p, float* g, float* m, float* v, const AdamSettings& s) {
    constexpr long PIECE = 1 << 15;
    const float rate = (float)(s.lr / (1 - std::pow((double)s.beta1, (double)s.step)));
    const float scale = (float)(1 / std::sqrt(1 - std::pow((double)s.beta2, (double)s.step)));
    const AdamStep now{rate, scale, s.beta1, s.beta2, s.epsilon};
    parallel((int)((n + PIECE - 1) / PIECE), [&](int piece) {
        for (long i = piece * PIECE, end = std::min(n, i + PIECE); i < end; i++) adam(p[i], g[i], m[i], v[i], now);
    });
}

}  // namespace lumi
