// (1 - a - b) |x - y| + a (1 - SSIM(x, y)) + b (x - y)^2 and its gradient, as in loss.cpp. A block of threads copies 32
// x 32 pixels with their halo to shared memory and blurs along rows, then along columns, four rows per thread.
#include "device.h"
#include "math.h"
#include "similarity.h"

using namespace lumi;

namespace {

constexpr int SIDE = 32, WIDE = SIDE + 2 * RADIUS, EACH = SIDE * SIDE / THREADS;
static_assert(SIDE == WARP && EACH == 4, "a warp owns four rows");

inline float weight(int k) { return WINDOW[k <= RADIUS ? k : 2 * RADIUS - k]; }

// Sum of the window's rows over `blurred`, for the EACH rows of this thread.
inline void blur_columns(const float (*blurred)[SIDE], float* out) {
    const int row = warp() * EACH;
    for (int o = 0; o < EACH; o++) out[o] = 0;
    for (int r = 0; r < EACH + 2 * RADIUS; r++) {
        const float v = blurred[row + r][lane()];
        for (int o = 0; o < EACH; o++)
            if (r >= o && r - o <= 2 * RADIUS) out[o] += weight(r - o) * v;
    }
}

struct Place {  // position of a block in the image
    int x, y, width, height;
    size_t plane;
    Place(int width, int height)
        : x((int)blockIdx.x * SIDE),
          y((int)blockIdx.y * SIDE),
          width(width),
          height(height),
          plane((size_t)width * height) {}
    bool holds(int column, int row) const { return column >= 0 && row >= 0 && column < width && row < height; }
    size_t at(int column, int row) const { return (size_t)row * width + column; }
};

}  // namespace

struct LossWeights {
    float ssim, square, gain[3], bias[3];
};
static_assert(sizeof(LossWeights) == 32, "LossWeightsStruct of splatting_cuda.py");

// Adds to sums: doubles l1, mse, ssim, gain (3), bias (3), not yet divided by the number of values.
// partial (9 planes): dS/dE[u], dS/dE[u^2], dS/dE[u v] of each channel. mask may be null.
KERNEL(__launch_bounds__(THREADS) similarity_maps)
(int width, int height, const float* rgb, const u8* target, const u8* mask, LossWeights w, float* partial,
 double* sums) {
    __shared__ float u[WIDE][WIDE + 1], v[WIDE][WIDE + 1], blurred[5][WIDE][SIDE], total;
    const Place place(width, height);
    const int c = (int)blockIdx.z;
    if (threadIdx.x == 0) total = 0;
    for (int i = (int)threadIdx.x; i < WIDE * WIDE; i += THREADS) {
        const int row = i / WIDE, column = i % WIDE, x = place.x + column - RADIUS, y = place.y + row - RADIUS;
        const bool in = place.holds(x, y);
        const size_t at = c * place.plane + place.at(x, y);
        u[row][column] = in ? w.gain[c] * rgb[at] + w.bias[c] : 0.f;
        v[row][column] = in ? (float)target[at] * (1.f / 255) : 0.f;
    }
    __syncthreads();
    for (int row = warp(); row < WIDE; row += WARPS) {
        float m[5] = {};
        for (int k = 0; k <= 2 * RADIUS; k++) {
            const float a = u[row][lane() + k], b = v[row][lane() + k], g = weight(k);
            m[0] += g * a, m[1] += g * b, m[2] += g * a * a, m[3] += g * b * b, m[4] += g * a * b;
        }
        for (int k = 0; k < 5; k++) blurred[k][row][lane()] = m[k];
    }
    __syncthreads();
    float e[5][EACH], similar = 0;
    for (int k = 0; k < 5; k++) blur_columns(blurred[k], e[k]);
    for (int o = 0; o < EACH; o++) {
        const int x = place.x + lane(), y = place.y + warp() * EACH + o;
        if (!place.holds(x, y)) continue;
        const float use = mask ? (float)mask[place.at(x, y)] * (1.f / 255) : 1.f;
        const Moments<float> moments{e[0][o], e[1][o], e[2][o], e[3][o], e[4][o]};
        const Similarity<float> s = similarity(moments, use);
        similar += s.value;
        partial[(0 + c) * place.plane + place.at(x, y)] = s.d_x;
        partial[(3 + c) * place.plane + place.at(x, y)] = s.d_xx;
        partial[(6 + c) * place.plane + place.at(x, y)] = s.d_xy;
    }
    similar = warp_sum(similar);
    if (lane() == 0) atomicAdd(&total, similar);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(sums + 2, (double)total);
}

// gradient (3 planes), error (1 plane: sum over channels of |difference|): either may be null.
KERNEL(__launch_bounds__(THREADS) loss_gradient)
(int width, int height, const float* rgb, const u8* target, const u8* mask, LossWeights w, const float* partial,
 float* gradient, float* error, double* sums) {
    __shared__ float in[3][WIDE][WIDE + 1], blurred[3][WIDE][SIDE], totals[9];
    const Place place(width, height);
    const float per_value = 1.f / (3.f * (float)width * (float)height), absolute = 1 - w.ssim - w.square;
    float off[EACH] = {}, l1 = 0, square = 0;
    if (threadIdx.x < 9) totals[threadIdx.x] = 0;
    for (int c = 0; c < 3; c++) {
        float d[3][EACH] = {}, to_gain = 0, to_bias = 0;
        __syncthreads();  // all threads have read the data of the last channel
        if (w.ssim > 0 && gradient) {
            for (int i = (int)threadIdx.x; i < WIDE * WIDE; i += THREADS) {
                const int row = i / WIDE, column = i % WIDE, x = place.x + column - RADIUS, y = place.y + row - RADIUS;
                for (int k = 0; k < 3; k++)
                    in[k][row][column] = place.holds(x, y) ? partial[(3 * k + c) * place.plane + place.at(x, y)] : 0.f;
            }
            __syncthreads();
            for (int row = warp(); row < WIDE; row += WARPS)
                for (int k = 0; k < 3; k++) {
                    float sum = 0;
                    for (int j = 0; j <= 2 * RADIUS; j++) sum += weight(j) * in[k][row][lane() + j];
                    blurred[k][row][lane()] = sum;
                }
            __syncthreads();
            for (int k = 0; k < 3; k++) blur_columns(blurred[k], d[k]);
        }
        for (int o = 0; o < EACH; o++) {
            const int x = place.x + lane(), y = place.y + warp() * EACH + o;
            if (!place.holds(x, y)) continue;
            const size_t at = c * place.plane + place.at(x, y);
            const float use = mask ? (float)mask[place.at(x, y)] * (1.f / 255) : 1.f;
            const float raw = rgb[at], u = w.gain[c] * raw + w.bias[c], v = (float)target[at] * (1.f / 255);
            const float difference = u - v, size = maximum(difference, -difference);
            const float sign = difference > 0 ? 1.f : difference < 0 ? -1.f : 0.f;
            off[o] += use * size, l1 += use * size, square += use * difference * difference;
            float g = use * (absolute * sign + 2.f * w.square * difference);
            g -= w.ssim * (d[0][o] + 2.f * u * d[1][o] + v * d[2][o]);
            g *= per_value;
            to_gain += g * raw, to_bias += g;
            if (gradient) gradient[at] = g * w.gain[c];
        }
        to_gain = warp_sum(to_gain), to_bias = warp_sum(to_bias);
        if (lane() == 0) atomicAdd(&totals[3 + c], to_gain), atomicAdd(&totals[6 + c], to_bias);
    }
    for (int o = 0; o < EACH && error; o++) {
        const int x = place.x + lane(), y = place.y + warp() * EACH + o;
        if (place.holds(x, y)) error[place.at(x, y)] = off[o];
    }
    l1 = warp_sum(l1), square = warp_sum(square);
    if (lane() == 0) atomicAdd(&totals[0], l1), atomicAdd(&totals[1], square);
    __syncthreads();
    if (threadIdx.x < 9 && threadIdx.x != 2) atomicAdd(sums + threadIdx.x, (double)totals[threadIdx.x]);
}
