// Macros and intrinsics of GPU kernels. NVRTC defines them; for a C++ compiler emulate.h does. It runs the same kernels
// thread by thread on a CPU, so that they are tested on machines without a GPU.
//
// Both sides rely on these rules: a block is one-dimensional; all 32 lanes of a warp reach every collective, and all
// threads of a block reach every __syncthreads().
#pragma once
#ifdef __CUDACC__
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define KERNEL(name) extern "C" __global__ void name
#else
#include "emulate.h"
#endif

namespace lumi {

constexpr int WARP = 32, THREADS = 256, WARPS = THREADS / WARP;
constexpr u32 ALL = 0xffffffffu;

inline int lane() { return (int)(threadIdx.x % WARP); }
inline int warp() { return (int)(threadIdx.x / WARP); }

// Sum over the lanes, in every lane.
template <class T> inline T warp_sum(T v) {
    for (int d = WARP / 2; d; d /= 2) v += __shfl_xor_sync(ALL, v, d);
    return v;
}

// Exclusive sum over the threads of a block; `total` is the sum over all. shared: WARPS words, not reused before the
// next __syncthreads().
inline u32 block_scan(u32 v, u32* shared, u32& total) {
    u32 sum = v;
    for (int d = 1; d < WARP; d *= 2) {
        const u32 left = __shfl_up_sync(ALL, sum, d);
        if (lane() >= d) sum += left;
    }
    if (lane() == WARP - 1) shared[warp()] = sum;
    __syncthreads();
    u32 before = 0;
    total = 0;
    for (int w = 0; w < WARPS; w++) {
        if (w == warp()) before = total;
        total += shared[w];
    }
    return before + sum - v;
}

}  // namespace lumi
