#include "adam.h"

#include <algorithm>
#include <cmath>

#include "pool.h"

namespace lumi {

void adam(long n, float* p, float* g, float* m, float* v, const AdamSettings& s) {
    constexpr long PIECE = 1 << 15;
    const float rate = (float)(s.lr / (1 - std::pow((double)s.beta1, (double)s.step)));
    const float scale = (float)(1 / std::sqrt(1 - std::pow((double)s.beta2, (double)s.step)));
    const float b1 = s.beta1, b2 = s.beta2, epsilon = s.epsilon;
    parallel((int)((n + PIECE - 1) / PIECE), [&](int piece) {
        for (long i = piece * PIECE, end = std::min(n, i + PIECE); i < end; i++) {
            const float x = g[i];
            m[i] += (1 - b1) * (x - m[i]);
            v[i] += (1 - b2) * (x * x - v[i]);
            p[i] -= rate * m[i] / (std::sqrt(v[i]) * scale + epsilon);
            g[i] = 0;
        }
    });
}

}  // namespace lumi
