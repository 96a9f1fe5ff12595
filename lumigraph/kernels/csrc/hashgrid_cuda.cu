// The field of instant-NGP (sample.h). The grid runs level by level, since the rows of one level fit the GPU's cache
// and those of all levels do not. Then one kernel runs both MLPs, with activations in registers from encoding to
// colour.
//
// Backward recomputes the forward pass, as on the CPU. Each warp keeps the sums of its part of the weight gradients in
// registers until the block has processed all samples. Outputs have float precision. Gradients of weights and encoding
// are computed in TF32 (mma.h); the error is noise compared with that of a batch of random rays.
#include "mma.h"
#include "sample.h"

using namespace lumi;

struct Grid {
    Level level[LEVELS];
};

namespace {

constexpr int BATCH = WARPS * 16;  // samples of a block
constexpr int COLOUR = 8;          // the 3 outputs, padded

// Offset of the operand pairs of each matrix.
constexpr int F1 = 0, F2 = F1 + HIDDEN * ENCODED / 2, F3 = F2 + LATENT * HIDDEN / 2, F4 = F3 + HIDDEN * MIXED / 2,
              F5 = F4 + HIDDEN * HIDDEN / 2;

template <class F> inline void each_corner(const Level& level, const float* xyz, F f) {
    const float x = in_cube(xyz[0]), y = in_cube(xyz[1]), z = in_cube(xyz[2]);
    if (level.dense)
        corners(level.scale, Dense(level), x, y, z, f);
    else
        corners(level.scale, Hashed(level), x, y, z, f);
}

inline void add_pair(float2* to, float x, float y) {
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 900
    atomicAdd(to, make_float2(x, y));
#else
    atomicAdd(&to->x, x), atomicAdd(&to->y, y);
#endif
}

template <int OUT, int IN, int PADDED = OUT> inline void arrange(const float* w, float4* forward, float2* backward) {
    for (int e = (int)(blockIdx.x * THREADS + threadIdx.x); e < PADDED * IN; e += (int)gridDim.x * THREADS) {
        const int o = e / IN, i = e % IN;
        const float value = o < OUT ? w[e] : 0.f, high = tf32(value);
        float* split = &forward[pair_of<IN>(o, i)].x + within_pair(i);
        split[0] = high, split[2] = tf32(value - high);
        (&backward[pair_of<PADDED>(i, o)].x)[within_pair(o)] = high;
    }
}

}  // namespace

// encoded (LEVELS, count, FEATURES); blockIdx.y is the level.
KERNEL(encode_samples)(Grid grid, const float2* table, const float* xyz, int count, float2* encoded) {
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x), l = (int)blockIdx.y;
    if (i >= count) return;
    const Level& level = grid.level[l];
    float x = 0, y = 0;
    each_corner(level, xyz + 3 * (size_t)i, [&](int, u32 entry, float weight) {
        const float2 v = table[(size_t)level.first + entry];
        x += weight * v.x, y += weight * v.y;
    });
    encoded[(size_t)l * count + i] = make_float2(x, y);
}

// Adds to g_table.
KERNEL(scatter_gradients)(Grid grid, const float* xyz, int count, const float2* g_encoded, float2* g_table) {
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x), l = (int)blockIdx.y;
    if (i >= count) return;
    const Level& level = grid.level[l];
    const float2 g = g_encoded[(size_t)l * count + i];
    if (g.x == 0 && g.y == 0) return;
    each_corner(level, xyz + 3 * (size_t)i, [&](int, u32 entry, float weight) {
        add_pair(g_table + (size_t)level.first + entry, weight * g.x, weight * g.y);
    });
}

// Operands of the matrices and of their transposes.
KERNEL(arrange_weights)(const float* w, float4* forward, float2* backward) {
    arrange<HIDDEN, ENCODED>(w + W1, forward + F1, backward + F1);
    arrange<LATENT, HIDDEN>(w + W2, forward + F2, backward + F2);
    arrange<HIDDEN, MIXED>(w + W3, forward + F3, backward + F3);
    arrange<HIDDEN, HIDDEN>(w + W4, forward + F4, backward + F4);
    arrange<3, HIDDEN, COLOUR>(w + W5, forward + F5, backward + F5);
}

namespace {

// The 16 samples of a warp: lane 4 g + t shares `first` + g and `first` + g + 8; the lane with t = 0 reads and writes
// for them.
struct Activations {
    Tile encoded[ENCODED / 8], hidden1[HIDDEN / 8], mixed[MIXED / 8], hidden2[HIDDEN / 8], hidden3[HIDDEN / 8];
    Tile colour[1];
    float density[2];
};

inline void density_forward(const float4* operands, const float2* encoded, int count, int first, Activations& a) {
    const int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int n = 0; n < ENCODED / 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {  // features 8 n + 2 t and the next: level 4 n + t
            const int i = first + g + 8 * half;
            const float2 v = i < count ? encoded[(size_t)(4 * n + t) * count + i] : make_float2(0, 0);
            a.encoded[n][2 * half] = v.x, a.encoded[n][2 * half + 1] = v.y;
        }
    multiply<ENCODED, HIDDEN>(operands + F1, a.encoded, a.hidden1);
    relu<HIDDEN>(a.hidden1);
    multiply<HIDDEN, LATENT>(operands + F2, a.hidden1, a.mixed);
    a.density[0] = density_of(a.mixed[0][0]), a.density[1] = density_of(a.mixed[0][2]);
}

inline void harmonics(const float* direction, int count, int first, Tile* out) {
    const int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int i = minimum(first + g + 8 * half, count - 1);
        const float* d = direction + 3 * (size_t)i;
        float basis[HARMONICS];
        sh_basis(3, d[0], d[1], d[2], basis);
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (t == k)
                for (int e = 0; e < 2; e++)
                    out[0][2 * half + e] = basis[2 * k + e], out[1][2 * half + e] = basis[8 + 2 * k + e];
    }
}

inline void colour_forward(const float4* operands, const float* direction, int count, int first, Activations& a) {
    harmonics(direction, count, first, a.mixed + LATENT / 8);
    multiply<MIXED, HIDDEN>(operands + F3, a.mixed, a.hidden2);
    relu<HIDDEN>(a.hidden2);
    multiply<HIDDEN, HIDDEN>(operands + F4, a.hidden2, a.hidden3);
    relu<HIDDEN>(a.hidden3);
    multiply<HIDDEN, COLOUR>(operands + F5, a.hidden3, a.colour);
    for (int e = 0; e < 4; e++) a.colour[0][e] = sigmoid(a.colour[0][e]);
}

struct Sums {
    Share<HIDDEN, ENCODED> w1;
    Share<LATENT, HIDDEN> w2;
    Share<HIDDEN, MIXED> w3;
    Share<HIDDEN, HIDDEN> w4;
    Share<HIDDEN, COLOUR> w5;  // (in, out), because there are few outputs
};

// Adds to g (out, in).
template <int OUT, int IN> inline void hand_in(const Share<OUT, IN>& share, float* g) {
    if (!share.any()) return;
#pragma unroll
    for (int i = 0; i < Share<OUT, IN>::EACH; i++)
        for (int e = 0; e < 4; e++) {
            const int out = share.row() + lane() / 4 + e / 2 * 8, in = share.column(i) + lane() % 4 * 2 + e % 2;
            atomicAdd(g + out * IN + in, share.sum[i][e]);
        }
}
inline void hand_in_colour(const Share<HIDDEN, COLOUR>& share, float* g) {
    if (!share.any()) return;
    for (int e = 0; e < 4; e++) {
        const int in = share.row() + lane() / 4 + e / 2 * 8, out = lane() % 4 * 2 + e % 2;
        if (out < 3) atomicAdd(g + out * HIDDEN + in, share.sum[0][e]);
    }
}

}  // namespace

// out (count, 4): density, red, green, blue.
KERNEL(__launch_bounds__(THREADS) field_values)
(const float4* operands, const float2* encoded, const float* direction, int count, float4* out) {
    const int first = (int)blockIdx.x * BATCH + warp() * 16;
    if (first >= count) return;
    Activations a;
    density_forward(operands, encoded, count, first, a);
    colour_forward(operands, direction, count, first, a);
    const float blue = __shfl_sync(ALL, a.colour[0][0], lane() + 1),
                blue8 = __shfl_sync(ALL, a.colour[0][2], lane() + 1);
    const int i = first + lane() / 4;
    if (lane() % 4) return;
    if (i < count) out[i] = make_float4(a.density[0], a.colour[0][0], a.colour[0][1], blue);
    if (i + 8 < count) out[i + 8] = make_float4(a.density[1], a.colour[0][2], a.colour[0][3], blue8);
}

// out (count): the density alone.
KERNEL(__launch_bounds__(THREADS) field_densities)
(const float4* operands, const float2* encoded, int count, float* out) {
    const int first = (int)blockIdx.x * BATCH + warp() * 16;
    if (first >= count) return;
    Activations a;
    density_forward(operands, encoded, count, first, a);
    const int i = first + lane() / 4;
    if (lane() % 4) return;
    if (i < count) out[i] = a.density[0];
    if (i + 8 < count) out[i + 8] = a.density[1];
}

// Adds to g_weights (WEIGHTS).
KERNEL(__launch_bounds__(THREADS) field_gradients)
(const float4* operands, const float2* back, const float2* encoded, const float* direction, const float4* g_out,
 int count, float2* g_encoded, float* g_weights) {
    __shared__ Turning shared;
    const int t = lane() % 4;
    Sums sums;
    for (int batch = (int)blockIdx.x * BATCH; batch < count; batch += (int)gridDim.x * BATCH) {
        const int first = batch + warp() * 16;
        Activations a;
        density_forward(operands, encoded, count, first, a);
        colour_forward(operands, direction, count, first, a);
        Tile g_colour[1];
        float g_density[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {  // columns 2 t and 2 t + 1 of the colour; none after the third
            const int i = first + lane() / 4 + 8 * half;
            const float4 g = i < count && t < 2 ? g_out[i] : make_float4(0, 0, 0, 0);
            const float* c = a.colour[0] + 2 * half;
            g_colour[0][2 * half] = raw_colour_gradient(c[0], t ? g.w : g.y);
            g_colour[0][2 * half + 1] = t ? 0.f : raw_colour_gradient(c[1], g.z);
            g_density[half] = t ? 0.f : raw_density_gradient(a.density[half], g.x);
        }
        Tile g[HIDDEN / 8], g_next[HIDDEN / 8], g_mixed[MIXED / 8];
        add_outer(a.hidden3, g_colour, shared, sums.w5);
        multiply_rounded<COLOUR, HIDDEN>(back + F5, g_colour, g);
        relu_backward<HIDDEN>(a.hidden3, g);
        add_outer(g, a.hidden2, shared, sums.w4);
        multiply_rounded<HIDDEN, HIDDEN>(back + F4, g, g_next);
        relu_backward<HIDDEN>(a.hidden2, g_next);
        add_outer(g_next, a.mixed, shared, sums.w3);
        multiply_rounded<HIDDEN, MIXED>(back + F3, g_next, g_mixed);
        g_mixed[0][0] += g_density[0], g_mixed[0][2] += g_density[1];
        add_outer(g_mixed, a.hidden1, shared, sums.w2);
        multiply_rounded<LATENT, HIDDEN>(back + F2, g_mixed, g);
        relu_backward<HIDDEN>(a.hidden1, g);
        add_outer(g, a.encoded, shared, sums.w1);
        Tile g_entry[ENCODED / 8];
        multiply_rounded<HIDDEN, ENCODED>(back + F1, g, g_entry);
#pragma unroll
        for (int n = 0; n < ENCODED / 8; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int i = first + lane() / 4 + 8 * half;
                const float2 v = make_float2(g_entry[n][2 * half], g_entry[n][2 * half + 1]);
                if (i < count) g_encoded[(size_t)(4 * n + t) * count + i] = v;
            }
    }
    hand_in(sums.w1, g_weights + W1), hand_in(sums.w2, g_weights + W2), hand_in(sums.w3, g_weights + W3);
    hand_in(sums.w4, g_weights + W4), hand_in_colour(sums.w5, g_weights + W5);
}
