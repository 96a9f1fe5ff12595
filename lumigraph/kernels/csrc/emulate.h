// An emulated GPU on one CPU thread. Each thread of a block is a fiber with its own stack, which switches when it waits
// for its warp or block. Tests run the kernels that NVRTC compiles, line by line, in an order that a GPU might have
// chosen. Blocks run one after the other. x86-64 only.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;

#define KERNEL(name) void name
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__
#define __noinline__

struct Dim {
    unsigned x, y, z;
};
inline Dim threadIdx, blockIdx, blockDim, gridDim;

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulation {

constexpr size_t STACK = 1 << 17;

struct Gathering {  // barrier of a warp or a block: arrivals, and the values of this phase and the last
    unsigned size = 0, arrived = 0, generation = 0;
    u64 values[2][32];
};

struct Machine {
    std::vector<char> stacks;
    std::vector<void*> sleeping;  // stack pointers
    std::vector<bool> done;
    std::vector<Gathering> warps;
    Gathering block;
    void* scheduler = nullptr;
    unsigned now = 0, alive = 0, idle = 0,
             stride = 1;  // next thread to run; the stride is odd, so that all threads get a turn
    std::function<void()> kernel;
};
inline Machine machine;

extern "C" void lumi_switch(void** from, void* to);
asm(R"(
.text
.globl lumi_switch
.type lumi_switch,@function
lumi_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

// Switches to the next running thread; returns when another thread switches back.
inline void hand_over() {
    Machine& m = machine;
    const unsigned from = m.now, threads = (unsigned)m.done.size();
    if (++m.idle > 4 * threads) {
        std::fprintf(stderr, "thread %u of block %u waits for threads that never come\n", from, blockIdx.x);
        std::abort();
    }
    do m.now = (m.now + m.stride) % threads;
    while (m.done[m.now]);
    if (m.now != from) {
        threadIdx = {m.now, 0, 0};
        lumi_switch(&m.sleeping[from], m.sleeping[m.now]);
    }
}

inline void begin() {
    Machine& m = machine;
    m.kernel();
    m.done[m.now] = true, m.alive--, m.idle = 0;
    void* gone;
    if (!m.alive) lumi_switch(&gone, m.scheduler);
    do m.now = (m.now + m.stride) % (unsigned)m.done.size();
    while (m.done[m.now]);
    threadIdx = {m.now, 0, 0};
    lumi_switch(&gone, m.sleeping[m.now]);
}

// Returns the values of all threads, valid until the next but one barrier.
inline const u64* gather(Gathering& g, unsigned who, u64 value) {
    const unsigned generation = g.generation;
    if (who < 32) g.values[generation % 2][who] = value;
    machine.idle = 0;
    if (++g.arrived == g.size)
        g.arrived = 0, g.generation++;
    else
        while (g.generation == generation) hand_over();
    return g.values[generation % 2];
}
inline const u64* of_warp(u32 mask, u64 value) {
    if (mask != 0xffffffffu) std::abort();
    return gather(machine.warps[threadIdx.x / 32], threadIdx.x % 32, value);
}

inline void run_block(unsigned threads) {
    Machine& m = machine;
    m.stacks.resize(threads * STACK), m.sleeping.resize(threads), m.done.assign(threads, false);
    m.warps.assign((threads + 31) / 32, {}), m.block = {}, m.block.size = threads;
    for (unsigned w = 0; w < m.warps.size(); w++) m.warps[w].size = 32;
    for (unsigned t = 0; t < threads; t++) {
        auto top = reinterpret_cast<uintptr_t>(m.stacks.data() + (t + 1) * STACK) & ~uintptr_t(63);
        void** stack = reinterpret_cast<void**>(top) - 2;
        *stack = reinterpret_cast<void*>(&begin);
        for (int r = 0; r < 6; r++) *--stack = nullptr;
        m.sleeping[t] = stack;
    }
    m.stride = (2 * ((m.stride * 2654435761u) >> 20) + 1) % threads;  // the number of threads is a power of two
    m.now = m.stride / 2, m.alive = threads, m.idle = 0, threadIdx = {m.now, 0, 0};
    lumi_switch(&m.scheduler, m.sleeping[m.now]);
}

template <class... A, size_t... I>
void run(void (*kernel)(A...), Dim grid, unsigned threads, void** args, std::index_sequence<I...>) {
    std::tuple<A...> values(*static_cast<std::remove_reference_t<A>*>(args[I])...);
    machine.kernel = [&] { std::apply(kernel, values); };
    gridDim = grid, blockDim = {threads, 1, 1};
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                run_block(threads);
            }
}
template <class... A> void run(void (*kernel)(A...), Dim grid, unsigned threads, void** args) {
    run(kernel, grid, threads, args, std::index_sequence_for<A...>());
}

template <class T> inline u64 pack(T v) {
    static_assert(sizeof(T) <= 8);
    u64 bits = 0;
    std::memcpy(&bits, &v, sizeof v);
    return bits;
}
template <class T> inline T unpack(u64 bits) {
    T v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}

}  // namespace emulation

inline void __syncthreads() { emulation::gather(emulation::machine.block, 32, 0); }
inline void __syncwarp() { emulation::of_warp(~0u, 0); }
inline void __threadfence() {}
template <class T> T __shfl_sync(u32 mask, T v, int from) {
    return emulation::unpack<T>(emulation::of_warp(mask, emulation::pack(v))[from & 31]);
}
template <class T> T __shfl_xor_sync(u32 mask, T v, int d) { return __shfl_sync(mask, v, (int)(threadIdx.x % 32) ^ d); }
template <class T> T __shfl_up_sync(u32 mask, T v, int d) {
    const int l = (int)(threadIdx.x % 32);
    return __shfl_sync(mask, v, l < d ? l : l - d);
}
inline u32 __ballot_sync(u32 mask, int here) {
    const u64* all = emulation::of_warp(mask, here != 0);
    u32 bits = 0;
    for (int l = 0; l < 32; l++) bits |= (u32)all[l] << l;
    return bits;
}
inline int __any_sync(u32 mask, int here) { return __ballot_sync(mask, here) != 0; }
inline u32 __match_any_sync(u32 mask, u32 v) {
    const u64* all = emulation::of_warp(mask, v);
    u32 bits = 0;
    for (int l = 0; l < 32; l++) bits |= (u32)(all[l] == v) << l;
    return bits;
}
inline int __popc(u32 v) { return __builtin_popcount(v); }
inline int __ffs(u32 v) { return __builtin_ffs((int)v); }
inline u32 __float_as_uint(float v) { return (u32)emulation::pack(v); }
inline float __uint_as_float(u32 v) { return emulation::unpack<float>(v); }
template <class T> T atomicAdd(T* p, T v) {
    const T before = *p;
    *p += v;
    return before;
}
