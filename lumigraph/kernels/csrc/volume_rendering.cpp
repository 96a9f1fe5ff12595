#include "volume_rendering.h"

#include "pool.h"
#include "sample.h"

namespace lumi {
namespace {

constexpr long RAYS = 128;  // rays per task

template <class F> void each_ray(long rays, F&& f) {
    parallel((int)((rays + RAYS - 1) / RAYS), [&](int task) {
        for (long r = task * RAYS, end = r + RAYS < rays ? r + RAYS : rays; r < end; r++) f(r);
    });
}

}  // namespace

void light(const Packed& in, const Light& out) {
    each_ray(in.rays, [&](long r) {
        float rgb[3]{}, depth = 0, T = 1;
        for (int64_t i = in.first[r]; i < in.first[r + 1]; i++) {
            const float* s = in.density_rgb + 4 * i;
            const float through = let_through(s[0], in.length[i]), w = T * (1 - through);
            for (int c = 0; c < 3; c++) rgb[c] += w * s[1 + c];
            depth += w * in.distance[i];
            out.weight[i] = w;
            T *= through;
        }
        for (int c = 0; c < 3; c++) out.rgb[3 * r + c] = rgb[c];
        out.transmittance[r] = T, out.depth[r] = depth;
    });
}

void light_backward(const Packed& in, const Light& result, const Light& gradient, float* out) {
    each_ray(in.rays, [&](long r) {
        const float* g = gradient.rgb + 3 * r;
        float T = result.transmittance[r], behind = T * gradient.transmittance[r];
        for (int64_t i = in.first[r + 1] - 1; i >= in.first[r]; i--) {  // back to front, which avoids subtraction
            const float* s = in.density_rgb + 4 * i;
            const float w = result.weight[i];
            const float G = weight_gradient(s, in.distance[i], g, gradient.depth[r], gradient.weight[i]);
            out[4 * i] = density_gradient(in.length[i], T, G, behind);
            for (int c = 0; c < 3; c++) out[4 * i + 1 + c] = w * g[c];
            behind += w * G;
            T += w;  // T_i = T_{i+1} + w_i
        }
    });
}

}  // namespace lumi
