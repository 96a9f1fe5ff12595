// Tile binning in depth order. Depths are radix-sorted once per gaussian; then a stable counting scatter appends each
// gaussian to the lists of its tiles. This is cheaper than sorting (tile, depth) pairs and gives exactly the same
// order.
#include <algorithm>

#include "splat.h"

namespace lumi {
namespace {

constexpr int RANKS = 4096;  // gaussians per task of the scatter

// Positive floats sort like their bits. Only bits in which the depths differ are sorted, up to 11 per pass.
void sort_by_depth(View& view) {
    uint32_t* key = view.keys.reserve(view.count);
    uint32_t* key_swap = view.keys_swap.reserve(view.count);
    int32_t* order = view.order.reserve(view.count);
    int32_t* order_swap = view.order_swap.reserve(view.count);
    int n = 0;
    uint32_t low = ~0u, high = 0;
    for (int i = 0; i < view.count; i++) {
        if (view.splats[i].count == 0) continue;
        uint32_t bits;
        std::memcpy(&bits, &view.splats[i].z, 4);
        key[n] = bits;
        order[n++] = i;
        low = std::min(low, bits), high = std::max(high, bits);
    }
    view.visible = n;
    if (n < 2) return;
    int bits = high == low ? 0 : 32 - __builtin_clz(high - low), passes = (bits + 11) / 12;
    int digit = passes ? (bits + passes - 1) / passes : 0;
    const uint32_t mask = (1u << digit) - 1;
    std::vector<uint32_t> histogram((size_t)passes << digit, 0);
    for (int i = 0; i < n; i++) {
        uint32_t k = key[i] -= low;
        for (int p = 0; p < passes; p++) histogram[((size_t)p << digit) + (k >> (p * digit) & mask)]++;
    }
    for (int p = 0; p < passes; p++) {
        uint32_t* h = histogram.data() + ((size_t)p << digit);
        uint32_t start = 0;
        for (uint32_t b = 0; b <= mask; b++) {
            uint32_t c = h[b];
            h[b] = start, start += c;
        }
        for (int i = 0; i < n; i++) {
            uint32_t to = h[key[i] >> (p * digit) & mask]++;
            key_swap[to] = key[i], order_swap[to] = order[i];
        }
        std::swap(key, key_swap), std::swap(order, order_swap);
    }
    if (order != view.order.data()) std::memcpy(view.order.data(), order, (size_t)n * 4);
}

}  // namespace

void bin(View& view) {
    sort_by_depth(view);
    const int n = view.visible, tiles = view.tiles(), tasks = (n + RANKS - 1) / RANKS;
    const int32_t* order = view.order.data();
    auto& histogram = view.tile_histogram;
    histogram.assign((size_t)std::max(tasks, 1) * tiles, 0);
    auto each = [&](int task, auto f) {
        for (int r = task * RANKS, end = std::min(n, r + RANKS); r < end; r++) {
            if (r + 8 < end) __builtin_prefetch(&view.splats[order[r + 8]].first);
            int id = order[r], chunk = id / CHUNK;
            const Splat& s = view.splats[id];
            const uint16_t* tile = view.chunk_tiles[chunk].data() + s.first;
            for (int m = 0; m < s.count; m++) f(tile[m], id, view.chunk_first[chunk] + s.first + m);
        }
    };
    parallel(tasks, [&](int task) {
        int32_t* h = &histogram[(size_t)task * tiles];
        each(task, [&](int tile, int, int) { h[tile]++; });
    });
    view.tile_start.resize(tiles + 1);
    int32_t start = 0;
    for (int t = 0; t < tiles; t++) {
        view.tile_start[t] = start;
        for (int task = 0; task < tasks; task++) {
            int32_t& h = histogram[(size_t)task * tiles + t];
            int32_t c = h;
            h = start, start += c;
        }
    }
    view.tile_start[tiles] = start;
    Entry* entries = view.entries.reserve(start);
    parallel(tasks, [&](int task) {
        int32_t* h = &histogram[(size_t)task * tiles];
        each(task, [&](int tile, int id, int slot) { entries[h[tile]++] = Entry{id, slot}; });
    });
    // longest lists first, so that no thread starts a long one at the end
    view.tile_order.resize(tiles);
    for (int t = 0; t < tiles; t++) view.tile_order[t] = t;
    auto size = [&](int t) { return view.tile_start[t + 1] - view.tile_start[t]; };
    std::stable_sort(view.tile_order.begin(), view.tile_order.end(), [&](int a, int b) { return size(a) > size(b); });
}

}  // namespace lumi
