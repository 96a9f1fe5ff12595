// SIMD vectors: a `vf` is LUMI_LANES floats. The vector extensions of GCC and Clang compile one source to SSE2, AVX2,
// AVX-512 and NEON. math.h has the same functions for a plain `float`; gaussian.h is generic over both.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "math.h"

#ifndef LUMI_LANES
#define LUMI_LANES 4
#endif

namespace lumi {

constexpr int VL = LUMI_LANES;
typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef float vf_unaligned __attribute__((vector_size(VL * 4), aligned(4), may_alias));

inline vf load(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
inline void store(float* p, vf v) { *reinterpret_cast<vf_unaligned*>(p) = v; }
inline vf spread(float a) { return a - vf{}; }

inline vf select(vi mask, vf a, vf b) { return mask ? a : b; }
inline vf keep(vi mask, vf a) { return (vf)(mask & (vi)a); }  // a if mask, else +0, even if a is NaN
#if defined(__AVX512F__) && LUMI_LANES == 16                  // GCC turns `a < b ? a : b` into a compare and a blend
inline vf minimum(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
inline vf maximum(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
#elif defined(__AVX__) && LUMI_LANES == 8
inline vf minimum(vf a, vf b) { return __builtin_ia32_minps256(a, b); }
inline vf maximum(vf a, vf b) { return __builtin_ia32_maxps256(a, b); }
#else
inline vf minimum(vf a, vf b) { return a < b ? a : b; }
inline vf maximum(vf a, vf b) { return a > b ? a : b; }
#endif
inline vf root(vf a) {
    vf r;
    for (int l = 0; l < VL; l++) r[l] = __builtin_sqrtf(a[l]);
    return r;
}

// 1/x with relative error 1e-7. Avoids the division unit, which is slow for 16 lanes.
inline vf reciprocal(vf x) {
#if defined(__AVX512F__) && LUMI_LANES == 16
    vf r = (vf)_mm512_rcp14_ps((__m512)x);
    return r * (2.f - x * r);
#else
    return 1.f / x;
#endif
}

// 2^x for x <= 0: fraction in (-1, 0], degree-5 minimax polynomial, relative error 3e-7; may be wrong below 2^-30.
// Evaluates two terms at a time for a shorter dependency chain, the largest last for accuracy.
inline vf exp2_fraction(vf f) {
    vf square = f * f, high = f * 0.009188611581f + 0.05527972272f, low = f * 0.2401721895f + 0.6931422527f;
    return ((square * 0.0009387881873f + high) * square + low) * f + 0.9999999251f;
}
inline vf exp2_negative(vf x) {
#if defined(__AVX512DQ__) && LUMI_LANES == 16
    constexpr int CEIL = 2;  // x - ceil(x), then scale by 2^floor(y) with y = ceil(x)
    vf n = (vf)_mm512_roundscale_ps((__m512)x, CEIL);
    return (vf)_mm512_scalef_ps((__m512)exp2_fraction(x - n), (__m512)n);
#else
    x = maximum(x, spread(-30.f));
    vi i = __builtin_convertvector(x, vi);
    vf p = exp2_fraction(x - __builtin_convertvector(i, vf));
    return (vf)((vi)p + (i << 23));
#endif
}

// e^x over the whole float range, relative error 2e-7; saturates instead of overflowing.
inline vf exponential(vf x) {
    x = minimum(maximum(x, spread(-87.f)), spread(87.f));
    vf magic = spread(12582912.f), n = (x * 1.44269504f + magic) - magic;  // nearest integer
    vi i = __builtin_convertvector(n, vi);
    vf f = x - n * 0.693145752f;  // Cody-Waite: ln 2 in two parts
    f = f - n * 1.42860677e-6f;
    vf p = f * (1.f / 720) + (1.f / 120);
    p = p * f + (1.f / 24);
    p = p * f + (1.f / 6);
    p = p * f + 0.5f;
    p = p * f + 1.f;
    p = p * f + 1.f;
    return (vf)((vi)p + (i << 23));
}

// log2(x) for normal positive x: atanh series on [1/sqrt 2, sqrt 2), absolute error 1e-7.
inline vf logarithm2(vf x) {
    vi bits = (vi)x - 0x3f3504f3;
    vi e = bits >> 23;
    vf m = (vf)((bits & 0x7fffff) + 0x3f3504f3);
    vf s = (m - 1.f) / (m + 1.f), s2 = s * s;
    vf p = s2 * 0.320598898f + 0.412198583f;
    p = p * s2 + 0.577078016f;
    p = p * s2 + 0.961796694f;
    p = p * s2 + 2.885390082f;
    return p * s + __builtin_convertvector(e, vf);
}

typedef int32_t quarter_i __attribute__((vector_size(16)));
inline uint64_t join(vi mask) {  // OR of all lanes; the upper half is garbage
    union {
        vi a;
        quarter_i q[VL / 4];
    } x{mask};
    quarter_i r = x.q[0];
    for (int i = 1; i < VL / 4; i++) r |= x.q[i];
    union {
        quarter_i a;
        uint64_t u[2];
    } y{r};
    uint64_t both = y.u[0] | y.u[1];
    return both | both >> 32;
}
inline bool any(vi mask) {
#if defined(__AVX512F__) && LUMI_LANES == 16
    return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif defined(__AVX__) && LUMI_LANES == 8
    return __builtin_ia32_movmskps256((vf)mask) != 0;
#else
    return (uint32_t)join(mask) != 0;
#endif
}

inline float sum(vf v) {
#if LUMI_LANES == 16
    typedef float half_t __attribute__((vector_size(32)));
    typedef float quarter_t __attribute__((vector_size(16)));
    union {
        vf a;
        half_t b[2];
    } u{v};
    union {
        half_t a;
        quarter_t b[2];
    } q{u.b[0] + u.b[1]};
    quarter_t z = q.b[0] + q.b[1];
    return (z[0] + z[2]) + (z[1] + z[3]);
#elif LUMI_LANES == 8
    typedef float quarter_t __attribute__((vector_size(16)));
    union {
        vf a;
        quarter_t b[2];
    } q{v};
    quarter_t z = q.b[0] + q.b[1];
    return (z[0] + z[2]) + (z[1] + z[3]);
#else
    float s = 0;
    for (int l = 0; l < VL; l++) s += v[l];
    return s;
#endif
}

// Transposes in place: r[i][j] <-> r[j][i].
#if LUMI_LANES == 8
inline void transpose(vf* r) {
#define LUMI_SHUFFLE __builtin_shufflevector
    vf a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = LUMI_SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        a[i + 1] = LUMI_SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = LUMI_SHUFFLE(a[i + j], a[i + 2 + j], 0, 1, 8, 9, 4, 5, 12, 13);
            b[i + 2 * j + 1] = LUMI_SHUFFLE(a[i + j], a[i + 2 + j], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = LUMI_SHUFFLE(b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = LUMI_SHUFFLE(b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
#undef LUMI_SHUFFLE
}
#else
template <int K, size_t... L> inline void butterfly(vf& x, vf& y, std::index_sequence<L...>) {
    vf a = __builtin_shufflevector(x, y, ((L & K) ? VL + (L ^ K) : L)...);
    y = __builtin_shufflevector(x, y, ((L & K) ? VL + L : (L ^ K))...);
    x = a;
}
template <int K> inline void transpose_step(vf* r) {
    for (int i = 0; i < VL; i++)
        if (!(i & K)) butterfly<K>(r[i], r[i | K], std::make_index_sequence<VL>());
    if constexpr (2 * K < VL) transpose_step<2 * K>(r);
}
inline void transpose(vf* r) { transpose_step<1>(r); }
#endif

// VL rows of 16 floats, `stride` floats apart <-> 16 vectors over rows. VL divides 16.
inline void load_rows(const float* rows, long stride, vf* columns) {
    for (int c = 0; c < 16; c += VL) {
        for (int l = 0; l < VL; l++) columns[c + l] = load(rows + l * stride + c);
        transpose(columns + c);
    }
}
inline void store_rows(float* rows, long stride, vf* columns) {
    for (int c = 0; c < 16; c += VL) {
        transpose(columns + c);
        for (int l = 0; l < VL; l++) store(rows + l * stride + c, columns[c + l]);
    }
}

}  // namespace lumi
