// Radix sort of (key, id) pairs, 8 bits per pass, each pass in one sweep (Adinets and Merrill 2022: "Onesweep"). A
// block ranks its part, publishes its count of each digit, and adds up the counts of earlier blocks while these still
// work.
// Also the tile lists: entries of each gaussian in depth order, sorted by tile, which keeps that order.
#include "device.h"
#include "screen.h"

using namespace lumi;

namespace {

constexpr int ITEMS = 8, PART = THREADS * ITEMS, DIGITS = 256;
static_assert(THREADS == DIGITS, "a thread owns a digit");

// Status word: not ready, the count of this part alone, or the count of all parts so far.
constexpr u32 OWN = 1u << 30, WHOLE = 2u << 30, COUNT = OWN - 1;

// Sum over the parts before this one. They began earlier, so they finish without waiting for it.
inline u32 look_back(volatile u32* status, int part, int stride) {
    u32 before = 0;
    for (int j = part - 1; j >= 0; j--) {
        u32 word;
        do word = status[(size_t)j * stride];
        while (!(word & ~COUNT));
        before += word & COUNT;
        if (word & WHOLE) break;
    }
    return before;
}

inline u32 digit(u32 key, int shift) { return key >> shift & (DIGITS - 1); }

}  // namespace

// histograms (passes, 256), initially zero.
KERNEL(radix_histogram)(const u32* n, const u32* keys, u32* histograms, int passes) {
    __shared__ u32 counts[4][DIGITS];
    for (int p = 0; p < passes; p++) counts[p][threadIdx.x] = 0;
    __syncthreads();
    const u32 total = *n, stride = gridDim.x * THREADS;
    for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < total; i += stride)
        for (int p = 0; p < passes; p++) atomicAdd(&counts[p][digit(keys[i], 8 * p)], 1u);
    __syncthreads();
    for (int p = 0; p < passes; p++) {
        const u32 c = counts[p][threadIdx.x];
        if (c) atomicAdd(histograms + p * DIGITS + threadIdx.x, c);
    }
}

// status (parts, 256) and ticket, initially zero.
KERNEL(radix_pass)
(const u32* n, const u32* keys, const u32* ids, u32* keys_out, u32* ids_out, const u32* histogram, u32* status,
 u32* ticket, int shift) {
    __shared__ u32 drawn, counts[WARPS][DIGITS], local[DIGITS], target[DIGITS], scans[2][WARPS];
    __shared__ u32 sorted_keys[PART], sorted_ids[PART];
    const int t = (int)threadIdx.x, w = warp();
    if (t == 0) drawn = atomicAdd(ticket, 1u);
    for (int k = 0; k < WARPS; k++) counts[k][t] = 0;
    __syncthreads();
    const u32 part = drawn, begin = part * PART, total = *n;
    if (begin >= total) return;
    const u32 held = total - begin < PART ? total - begin : PART;

    u32 key[ITEMS], id[ITEMS], rank[ITEMS];
    for (int k = 0; k < ITEMS; k++) {  // items of a warp are contiguous, so that equal digits keep their order
        const u32 i = (u32)(w * ITEMS + k) * WARP + lane();
        key[k] = i < held ? keys[begin + i] : ALL;  // past the end: sorted last, never written
        id[k] = i < held ? ids[begin + i] : 0;
    }
    for (int k = 0; k < ITEMS; k++) {
        const u32 d = digit(key[k], shift), same = __match_any_sync(ALL, d);
        const u32 before = counts[w][d];
        __syncwarp();
        if ((same & ((1u << lane()) - 1)) == 0) counts[w][d] = before + __popc(same);
        __syncwarp();
        rank[k] = before + __popc(same & ((1u << lane()) - 1));
    }
    __syncthreads();
    u32 mine = 0, whole, ignored;
    for (int k = 0; k < WARPS; k++) {
        const u32 c = counts[k][t];
        counts[k][t] = mine, mine += c;
    }
    volatile u32* said = status + t;
    said[(size_t)part * DIGITS] = (part ? OWN : WHOLE) | mine;
    const u32 start = block_scan(mine, scans[0], ignored), first = block_scan(histogram[t], scans[1], whole);
    const u32 before = look_back(said, (int)part, DIGITS);
    if (part) said[(size_t)part * DIGITS] = WHOLE | (before + mine);
    local[t] = start, target[t] = first + before - start;
    __syncthreads();
    for (int k = 0; k < ITEMS; k++) {
        const u32 d = digit(key[k], shift), at = local[d] + counts[w][d] + rank[k];
        sorted_keys[at] = key[k], sorted_ids[at] = id[k];
    }
    __syncthreads();
    for (u32 i = t; i < held; i += THREADS) {
        const u32 to = target[digit(sorted_keys[i], shift)] + i;
        keys_out[to] = sorted_keys[i], ids_out[to] = sorted_ids[i];
    }
}

// Tiles of each gaussian, in depth order. counts[0] = all entries, counts[1] = entries that fit.
KERNEL(bin_tiles)
(int width, int height, int tiles_x, const u32* order, const Splat* splats, u32* status, u32* ticket, u32* counts,
 u32 capacity, u32* keys, u32* ids) {
    __shared__ u32 drawn, before, scans[WARPS];
    if (threadIdx.x == 0) drawn = atomicAdd(ticket, 1u);
    __syncthreads();
    const u32 part = drawn, begin = part * THREADS, n = counts[2];
    if (begin >= n) {
        if (n == 0 && part == 0 && threadIdx.x == 0) counts[0] = counts[1] = 0;
        return;
    }
    const u32 rank = begin + threadIdx.x, id = rank < n ? order[rank] : 0;
    const u32 mine = rank < n ? (u32)splats[id].count : 0;
    u32 total;
    u32 at = block_scan(mine, scans, total);
    if (threadIdx.x == 0) {
        volatile u32* said = status;
        said[part] = (part ? OWN : WHOLE) | total;
        before = look_back(said, (int)part, 1);
        if (part) said[part] = WHOLE | (before + total);
        if (begin + THREADS >= n) {
            counts[0] = before + total;
            counts[1] = before + total < capacity ? before + total : capacity;
        }
    }
    __syncthreads();
    if (!mine) return;
    at += before;
    const Splat s = splats[id];
    for_tile_rows(s, width, height, [&](int row, int left, int right) {
        for (int x = left; x <= right; x++, at++)
            if (at < capacity) keys[at] = (u32)(row * tiles_x + x), ids[at] = id;
    });
}

// start (tiles + 1): offset of each tile's entries in the sorted list.
KERNEL(tile_ranges)(const u32* counts, const u32* keys, int tiles, u32* start) {
    const u32 n = counts[1], stride = gridDim.x * THREADS;
    for (u32 i = blockIdx.x * THREADS + threadIdx.x; i <= n; i += stride) {
        const int left = i ? (int)keys[i - 1] : -1, right = i < n ? (int)keys[i] : tiles;
        for (int t = left + 1; t <= right; t++) start[t] = i;
    }
}
