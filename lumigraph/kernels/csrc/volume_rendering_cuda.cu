// Volume rendering (sample.h), one ray per warp, 32 samples at a time. Products and sums along the ray are scans over
// the lanes.
#include "device.h"
#include "sample.h"

using namespace lumi;

namespace {

// Sums over this lane and later ones.
inline float sum_from_behind(float v) {
    for (int d = 1; d < WARP; d *= 2) {
        const float other = __shfl_sync(ALL, v, lane() + d);
        if (lane() + d < WARP) v += other;
    }
    return v;
}

// The samples of ray r, none if `first` is invalid: no access outside the arrays.
struct Span {
    long long begin, end;
    Span(const long long* first, int r, int samples) : begin(first[r]), end(first[r + 1]) {
        if (!(0 <= begin && begin <= end && end <= samples)) begin = end = 0;
    }
};

}  // namespace

KERNEL(composite_rays)
(const float4* density_rgb, const float* distance, const float* length, const long long* first, int rays, int samples,
 float* rgb, float* transmittance, float* depth, float* weight) {
    const int r = (int)blockIdx.x * WARPS + warp();
    if (r >= rays) return;
    const Span span(first, r, samples);
    float T = 1, sum[4] = {};
    for (long long at = span.begin; at < span.end; at += WARP) {
        const long long i = at + lane();
        const bool here = i < span.end;
        const float4 s = here ? density_rgb[i] : make_float4(0, 0, 0, 0);
        const float through = here ? let_through(s.x, length[i]) : 1.f;
        float product = through;
        for (int d = 1; d < WARP; d *= 2) {
            const float before = __shfl_up_sync(ALL, product, d);
            if (lane() >= d) product *= before;
        }
        const float before = __shfl_up_sync(ALL, product, 1);
        const float w = T * (lane() ? before : 1.f) * (1 - through);
        sum[0] += w * s.y, sum[1] += w * s.z, sum[2] += w * s.w;
        if (here) sum[3] += w * distance[i], weight[i] = w;
        T *= __shfl_sync(ALL, product, WARP - 1);
    }
    for (int k = 0; k < 4; k++) sum[k] = warp_sum(sum[k]);
    if (lane()) return;
    for (int k = 0; k < 3; k++) rgb[3 * (size_t)r + k] = sum[k];
    transmittance[r] = T, depth[r] = sum[3];
}

// Back to front, which avoids subtraction. T_i = T_{i+1} + w_i.
KERNEL(composite_rays_backward)
(const float4* density_rgb, const float* distance, const float* length, const long long* first, int rays, int samples,
 const float* transmittance, const float* weight, const float* g_rgb, const float* g_transmittance,
 const float* g_depth, const float* g_weight, float4* out) {
    const int r = (int)blockIdx.x * WARPS + warp();
    if (r >= rays) return;
    const Span span(first, r, samples);
    const float* g = g_rgb + 3 * (size_t)r;
    float T = transmittance[r], behind = T * g_transmittance[r];
    for (long long end = span.end; end > span.begin; end -= WARP) {
        const long long i = end - WARP + lane();
        const bool here = i >= span.begin;
        float w = 0, G = 0;
        if (here) {
            const float4 s = density_rgb[i];
            const float sample[4] = {s.x, s.y, s.z, s.w};
            w = weight[i], G = weight_gradient(sample, distance[i], g, g_depth[r], g_weight[i]);
        }
        const float light = sum_from_behind(w), worth = sum_from_behind(w * G);
        if (here) {
            const float dense = density_gradient(length[i], T + light - w, G, behind + worth - w * G);
            out[i] = make_float4(dense, w * g[0], w * g[1], w * g[2]);
        }
        T += __shfl_sync(ALL, light, 0), behind += __shfl_sync(ALL, worth, 0);
    }
}
