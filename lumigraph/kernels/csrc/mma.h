// Products of small matrices by the 32 lanes of a warp: on tensor cores since Ampere. Turing, whose tensor cores have
// no number format of this range, and the emulated GPU exchange values between lanes instead.
//
// Tensor cores multiply TF32: 8 bits of exponent, so that gradients need no loss scaling, and 11 bits of significand.
// Gradients are rounded to TF32, an error of about 3e-4 of their size. Activations are not rounded: near zero that
// would flip a relu, which changes the gradient by a hundredth. They are split into two TF32 parts; the neglected part
// of a product is about the rounding error of a float.
#pragma once
#include "device.h"
#include "math.h"

namespace lumi {

#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
constexpr bool TF32 = true;
inline float tf32(float v) {
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
    return __uint_as_float(bits);
}
#elif defined(__CUDACC__)
constexpr bool TF32 = false;
inline float tf32(float v) { return v; }
#else
constexpr bool TF32 = true;
inline float tf32(float v) { return __uint_as_float((__float_as_uint(v) + 0x1000u) & ~0x1fffu); }
#endif

// d (16, 8) += a (16, 8) b (8, 8). With lane = 4 g + t, a lane holds
//   a  (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4)
//   b  (t, g) (t + 4, g)
//   d  (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1)
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
inline void multiply_add(float* d, const float (&a)[4], float b0, float b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
        " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}
#else
// Not inlined, since an MLP has hundreds of calls.
__noinline__ float4 exchange(float4 d, float4 a, float2 b) {
    const int g = lane() / 4, t = lane() % 4;
    for (int k = 0; k < 4; k++) {
        // lanes that hold rows g, g + 8 of a, and columns 2t, 2t + 1 of b
        const int row = 4 * g + k, even = 8 * t + k, odd = even + 4;
        const float x = __shfl_sync(ALL, a.x, row), x4 = __shfl_sync(ALL, a.z, row);
        const float y = __shfl_sync(ALL, a.y, row), y4 = __shfl_sync(ALL, a.w, row);
        const float u = __shfl_sync(ALL, b.x, even), u4 = __shfl_sync(ALL, b.y, even);
        const float v = __shfl_sync(ALL, b.x, odd), v4 = __shfl_sync(ALL, b.y, odd);
        d.x += x * u + x4 * u4, d.y += x * v + x4 * v4, d.z += y * u + y4 * u4, d.w += y * v + y4 * v4;
    }
    return d;
}
inline void multiply_add(float* d, const float (&a)[4], float b0, float b1) {
    const float4 sum =
        exchange(make_float4(d[0], d[1], d[2], d[3]), make_float4(a[0], a[1], a[2], a[3]), make_float2(b0, b1));
    d[0] = sum.x, d[1] = sum.y, d[2] = sum.z, d[3] = sum.w;
}
#endif

// ---- an MLP, 16 samples per warp
//
// The next product reads its input from the lanes that hold the last result, without an exchange. The inner index of a
// sum may have any order, so k, k + 4 of a group of eight denote features 2t, 2t + 1 here. A `Tile` holds 16 samples x
// 8 features, laid out as d above, and matrices are laid out to match.

typedef float Tile[4];

// For value (column n, row k) of a matrix with K rows: the lane's pair of operands, and the index in the pair.
template <int K> inline int pair_of(int n, int k) { return (n / 8 * (K / 8) + k / 8) * WARP + n % 8 * 4 + k % 8 / 2; }
inline int within_pair(int k) { return k % 2; }

template <int N> inline void clear(Tile* tiles) {
#pragma unroll
    for (int n = 0; n < N; n++) tiles[n][0] = tiles[n][1] = tiles[n][2] = tiles[n][3] = 0;
}

// out (16, N) = in (16, K) matrix (K, N) in float precision. matrix: pairs, high parts before low parts.
template <int K, int N> inline void multiply(const float4* matrix, const Tile* in, Tile* out) {
    clear<N / 8>(out);
#pragma unroll
    for (int k = 0; k < K / 8; k++) {
        const float a[4] = {in[k][0], in[k][2], in[k][1], in[k][3]};
        float high[4], low[4];
#pragma unroll
        for (int e = 0; e < 4; e++) high[e] = tf32(a[e]), low[e] = tf32(a[e] - high[e]);
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
            const float4 b = matrix[(n * (K / 8) + k) * WARP + lane()];
            multiply_add(out[n], high, b.x, b.y);
            if (TF32) multiply_add(out[n], low, b.x, b.y), multiply_add(out[n], high, b.z, b.w);
        }
    }
}

// The same product for gradients, rounded to TF32. matrix: pairs.
template <int K, int N> inline void multiply_rounded(const float2* matrix, const Tile* in, Tile* out) {
    clear<N / 8>(out);
#pragma unroll
    for (int k = 0; k < K / 8; k++) {
        const float a[4] = {tf32(in[k][0]), tf32(in[k][2]), tf32(in[k][1]), tf32(in[k][3])};
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
            const float2 b = matrix[(n * (K / 8) + k) * WARP + lane()];
            multiply_add(out[n], a, b.x, b.y);
        }
    }
}

template <int N> inline void relu(Tile* tiles) {
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) tiles[n][e] = maximum(tiles[n][e], 0.f);
}
// Sets gradients to zero where relu was inactive.
template <int N> inline void relu_backward(const Tile* activations, Tile* gradients) {
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (!(activations[n][e] > 0)) gradients[n][e] = 0;
}

// ---- sums over samples of outer products: the gradient of a matrix
//
// Samples are the inner index, so tiles are transposed in shared memory. A warp owns some of the (16, 8) blocks of the
// sum and adds up the products of all warps, half of the warps at a time because shared memory is small.

constexpr int TURNED = WARPS / 2 * 16, TURNED_ROW = 64 + 8;  // samples; floats, padded against bank conflicts
struct alignas(16) Turning {
    float a[TURNED][TURNED_ROW], b[TURNED][TURNED_ROW];
};
template <int N> inline void turn(const Tile* tiles, float (*to)[TURNED_ROW]) {
    const int row = warp() % (WARPS / 2) * 16 + lane() / 4, column = lane() % 4 * 2;
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
        *reinterpret_cast<float2*>(&to[row][8 * n + column]) = make_float2(tf32(tiles[n][0]), tf32(tiles[n][1]));
        *reinterpret_cast<float2*>(&to[row + 8][8 * n + column]) = make_float2(tf32(tiles[n][2]), tf32(tiles[n][3]));
    }
}

template <int M, int N> struct Share {  // the (16, 8) blocks of an (M, N) sum that this warp owns
    static constexpr int ROWS = M / 16, ALONG = ROWS * (N / 8) / WARPS, EACH = ALONG ? ALONG : 1;
    Tile sum[EACH] = {};
    int row() const { return warp() % ROWS * 16; }
    int column(int i) const { return (warp() / ROWS * EACH + i) * 8; }
    bool any() const { return column(0) < N; }
};

// share += a' b over the samples of a block, of_a (16, M) and of_b (16, N) of each warp. All threads must call this.
template <int M, int N> inline void add_outer(const Tile* of_a, const Tile* of_b, Turning& shared, Share<M, N>& share) {
    const int g = lane() / 4, t = lane() % 4;
    for (int half = 0; half < 2; half++) {
        __syncthreads();  // all threads have read the previous contents
        if (warp() / (WARPS / 2) == half) turn<M>(of_a, shared.a), turn<N>(of_b, shared.b);
        __syncthreads();
        if (!share.any()) continue;
        const int m = share.row() + g;
        for (int s = t; s < TURNED; s += 8) {
            const float a[4] = {shared.a[s][m], shared.a[s][m + 8], shared.a[s + 4][m], shared.a[s + 4][m + 8]};
#pragma unroll
            for (int i = 0; i < Share<M, N>::EACH; i++) {
                const int n = share.column(i) + g;
                multiply_add(share.sum[i], a, shared.b[s][n], shared.b[s + 4][n]);
            }
        }
    }
}

}  // namespace lumi
