#include "hashgrid.h"

#include <algorithm>
#include <memory>

#include "lanes.h"
#include "pool.h"

namespace lumi {
namespace {

constexpr int BLOCK = 96;   // samples: a multiple of the rows of all register tiles below, small enough for the cache
constexpr int CHUNKS = 32;  // per batch, each with its own weight gradient; fixed for sums that ignore the thread count
constexpr int PARTS = 4;    // tasks per level if their order has no effect
constexpr int COLOUR = VL > 4 ? VL : 4;  // the 3 outputs, padded to a vector

typedef float pair __attribute__((vector_size(8)));
typedef float pair_unaligned __attribute__((vector_size(8), aligned(4), may_alias));
inline pair load_pair(const float* p) { return *reinterpret_cast<const pair_unaligned*>(p); }
inline void store_pair(float* p, pair v) { *reinterpret_cast<pair_unaligned*>(p) = v; }

// ---- the grid

struct alignas(64) Corners {
    uint32_t index[8][BLOCK];
    float weight[8][BLOCK];
};

// The eight rows around each position of a block, and their trilinear weights. Positions are planes, within 0..1.
void find_corners(const Level& level, const float (*xyz)[BLOCK], Corners& out) {
    auto run = [&](const auto& entries) {
        for (int i = 0; i < BLOCK; i++)
            corners(level.scale, entries, xyz[0][i], xyz[1][i], xyz[2][i],
                    [&](int c, uint32_t entry, float weight) { out.index[c][i] = entry, out.weight[c][i] = weight; });
    };
    if (level.dense)
        run(Dense(level));
    else
        run(Hashed(level));
}

// Positions become planes and are clamped to the cube, NaN included. The block is padded with the corner of the cube.
void to_planes(const float* xyz, int n, float (*out)[BLOCK]) {
    for (int a = 0; a < 3; a++) {
        for (int i = 0; i < n; i++) out[a][i] = in_cube(xyz[3 * i + a]);
        for (int i = n; i < BLOCK; i++) out[a][i] = 0.f;
    }
}

// Calls f(level, sample, corners, i within them) for all samples, one level after another: the rows of one level nearly
// fit into the cache of a core, those of all levels do not. Rows of the next block are prefetched from `table`. `parts`
// tasks share a level; with one part, sums over a level have one order.
template <class F>
void each_corner(const Grid& grid, const float* table, const float* xyz, long count, int parts, F&& f) {
    const long blocks = (count + BLOCK - 1) / BLOCK;
    parallel(LEVELS * parts, [&](int task) {
        const int l = LEVELS - 1 - task / parts, part = task % parts;  // the finest levels take longest
        const float* entries = table + (size_t)grid.level[l].first * FEATURES;
        Corners corners[2];
        const long begin = blocks * part / parts, end = blocks * (part + 1) / parts;
        auto prepare = [&](long b) {
            float planes[3][BLOCK];
            to_planes(xyz + 3 * b * BLOCK, (int)std::min<long>(BLOCK, count - b * BLOCK), planes);
            Corners& c = corners[b & 1];
            find_corners(grid.level[l], planes, c);
            for (const auto& row : c.index)
                for (uint32_t index : row) __builtin_prefetch(entries + (size_t)index * FEATURES);
        };
        if (begin < end) prepare(begin);
        for (long b = begin; b < end; b++) {
            if (b + 1 < end) prepare(b + 1);
            const int n = (int)std::min<long>(BLOCK, count - b * BLOCK);
            for (int i = 0; i < n; i++) f(l, b * BLOCK + i, corners[b & 1], i);
        }
    });
}

// encoded (LEVELS, count, FEATURES)
void encode(const Grid& grid, const float* table, const float* xyz, long count, float* encoded) {
    each_corner(grid, table, xyz, count, PARTS, [&](int l, long sample, const Corners& corners, int i) {
        const float* entries = table + (size_t)grid.level[l].first * FEATURES;
        pair sum{};
        for (int c = 0; c < 8; c++)
            sum += corners.weight[c][i] * load_pair(entries + (size_t)corners.index[c][i] * FEATURES);
        store_pair(encoded + ((size_t)l * count + sample) * FEATURES, sum);
    });
}

void scatter(const Grid& grid, const float* xyz, long count, const float* g_encoded, float* g_table) {
    each_corner(grid, g_table, xyz, count, 1, [&](int l, long sample, const Corners& corners, int i) {
        float* entries = g_table + (size_t)grid.level[l].first * FEATURES;
        const pair g = load_pair(g_encoded + ((size_t)l * count + sample) * FEATURES);
        for (int c = 0; c < 8; c++) {
            float* e = entries + (size_t)corners.index[c][i] * FEATURES;
            store_pair(e, load_pair(e) + corners.weight[c][i] * g);
        }
    });
}

// ---- matrices, one sample per row

// out (BLOCK, N) = a (BLOCK, K) m (K, N); rows of `a` and `out` are lda and ldo apart. `relu` sets negative values to
// 0. `gate` (laid out as out) sets values to 0 where it is not positive.
template <int K, int N, bool RELU = false, bool GATE = false>
void matmul(const float* a, int lda, const float* m, float* out, int ldo, const float* gate = nullptr) {
    static_assert(N % VL == 0);
    constexpr int WIDE = VL == 16 ? 4 : 2;  // vectors across a register tile
    constexpr int V = N / VL < WIDE ? N / VL : WIDE, R = V == 1 ? 12 : 6;
    static_assert(BLOCK % R == 0 && N % (V * VL) == 0);
    for (int column = 0; column < N; column += V * VL)
        for (int row = 0; row < BLOCK; row += R) {
            vf sum[R][V];
            for (int r = 0; r < R; r++)
                for (int v = 0; v < V; v++) sum[r][v] = vf{};
            for (int k = 0; k < K; k++) {
                vf b[V];
                for (int v = 0; v < V; v++) b[v] = load(m + k * N + column + v * VL);
                for (int r = 0; r < R; r++) {
                    const float x = a[(row + r) * lda + k];
                    for (int v = 0; v < V; v++) sum[r][v] += x * b[v];
                }
            }
            for (int r = 0; r < R; r++)
                for (int v = 0; v < V; v++) {
                    const int at = (row + r) * ldo + column + v * VL;
                    vf x = sum[r][v];
                    if (RELU) x = maximum(x, vf{});
                    if (GATE) x = keep(load(gate + at) > 0.f, x);
                    store(out + at, x);
                }
        }
}

// sum (M, N) += a^T b over the samples: a (BLOCK, M), b (BLOCK, N), rows lda and N apart.
template <int M, int N> void outer(const float* a, int lda, const float* b, float* sum) {
    constexpr int WIDE = VL == 16 ? 4 : 2;
    constexpr int V = N / VL < WIDE ? N / VL : WIDE, R = M % 4 == 0 ? 4 : 3;
    static_assert(M % R == 0 && N % (V * VL) == 0);
    for (int row = 0; row < M; row += R)
        for (int column = 0; column < N; column += V * VL) {
            vf t[R][V];
            for (int r = 0; r < R; r++)
                for (int v = 0; v < V; v++) t[r][v] = load(sum + (row + r) * N + column + v * VL);
            for (int i = 0; i < BLOCK; i++) {
                vf y[V];
                for (int v = 0; v < V; v++) y[v] = load(b + i * N + column + v * VL);
                for (int r = 0; r < R; r++) {
                    const float x = a[i * lda + row + r];
                    for (int v = 0; v < V; v++) t[r][v] += x * y[v];
                }
            }
            for (int r = 0; r < R; r++)
                for (int v = 0; v < V; v++) store(sum + (row + r) * N + column + v * VL, t[r][v]);
        }
}

// ---- the MLPs over a block

// The matrices (in, out) for forward. The flat weights are (out, in), as backward needs them.
struct alignas(64) Transposed {
    float w1[ENCODED * HIDDEN], w2[HIDDEN * LATENT], w3[MIXED * HIDDEN], w4[HIDDEN * HIDDEN], w5[HIDDEN * COLOUR];
    explicit Transposed(const float* w) {
        fill<HIDDEN, ENCODED>(w + W1, w1), fill<LATENT, HIDDEN>(w + W2, w2), fill<HIDDEN, MIXED>(w + W3, w3);
        fill<HIDDEN, HIDDEN>(w + W4, w4), fill<3, HIDDEN, COLOUR>(w + W5, w5);
    }
    template <int OUT, int IN, int PADDED = OUT> static void fill(const float* w, float* t) {
        for (int i = 0; i < IN; i++)
            for (int o = 0; o < PADDED; o++) t[i * PADDED + o] = o < OUT ? w[o * IN + i] : 0.f;
    }
};

struct alignas(64) Block {
    float encoded[BLOCK * ENCODED], hidden1[BLOCK * HIDDEN], mixed[BLOCK * MIXED], hidden2[BLOCK * HIDDEN],
        hidden3[BLOCK * HIDDEN], colour[BLOCK * COLOUR];
    float g_colour[BLOCK * 4], g_hidden[BLOCK * HIDDEN], g_hidden2[BLOCK * HIDDEN], g_mixed[BLOCK * MIXED],
        g_encoded[BLOCK * ENCODED];
};

// encoded (LEVELS, count, FEATURES); the block takes n samples from `at` on.
void density_block(const Transposed& t, const float* encoded, long count, long at, int n, Block& b) {
    for (int l = 0; l < LEVELS; l++)
        for (int i = 0; i < BLOCK; i++)
            store_pair(b.encoded + i * ENCODED + l * FEATURES,
                       i < n ? load_pair(encoded + ((size_t)l * count + at + i) * FEATURES) : pair{});
    matmul<ENCODED, HIDDEN, true>(b.encoded, ENCODED, t.w1, b.hidden1, HIDDEN);
    matmul<HIDDEN, LATENT>(b.hidden1, HIDDEN, t.w2, b.mixed, MIXED);
}

void forward_block(const Transposed& t, const float* encoded, const Samples& s, long at, int n, Block& b) {
    density_block(t, encoded, s.count, at, n, b);
    const float* direction = s.direction + 3 * at;
    for (int i = 0; i < BLOCK; i++) {  // neighbouring samples belong to one ray
        const float *d = direction + 3 * i, *before = d - 3;
        float* h = b.mixed + i * MIXED + LATENT;
        if (i >= n || (i > 0 && d[0] == before[0] && d[1] == before[1] && d[2] == before[2]))
            std::copy_n(h - MIXED, HARMONICS, h);
        else
            sh_basis(3, d[0], d[1], d[2], h);
    }
    matmul<MIXED, HIDDEN, true>(b.mixed, MIXED, t.w3, b.hidden2, HIDDEN);
    matmul<HIDDEN, HIDDEN, true>(b.hidden2, HIDDEN, t.w4, b.hidden3, HIDDEN);
    matmul<HIDDEN, COLOUR>(b.hidden3, HIDDEN, t.w5, b.colour, COLOUR);
}

// Density and colour (n, 4) of the raw outputs of a block. Densities are gathered first, so that exp runs on vectors.
void activate(const Block& b, int n, float* out) {
    alignas(64) float raw[4][BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        raw[0][i] = b.mixed[i * MIXED];
        for (int c = 0; c < 3; c++) raw[1 + c][i] = b.colour[i * COLOUR + c];
    }
    for (int i = 0; i < BLOCK; i += VL) {
        store(raw[0] + i, density_of(load(raw[0] + i)));
        for (int c = 1; c < 4; c++) store(raw[c] + i, sigmoid(load(raw[c] + i)));
    }
    for (int i = 0; i < n; i++)
        for (int c = 0; c < 4; c++) out[4 * i + c] = raw[c][i];
}

// Gradients of a block: adds to g_weights, writes the encoding's to b.g_encoded. `out`: outputs of the block.
void backward_block(const float* w, const float* out, const float* g_out, int n, Block& b, float* g_weights) {
    float g_density[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        const float* o = out + 4 * i;
        const float* g = g_out + 4 * i;
        g_density[i] = i < n ? raw_density_gradient(o[0], g[0]) : 0.f;
        for (int c = 0; c < 3; c++) b.g_colour[4 * i + c] = i < n ? raw_colour_gradient(o[1 + c], g[1 + c]) : 0.f;
    }
    outer<3, HIDDEN>(b.g_colour, 4, b.hidden3, g_weights + W5);
    matmul<3, HIDDEN, false, true>(b.g_colour, 4, w + W5, b.g_hidden, HIDDEN, b.hidden3);
    outer<HIDDEN, HIDDEN>(b.g_hidden, HIDDEN, b.hidden2, g_weights + W4);
    matmul<HIDDEN, HIDDEN, false, true>(b.g_hidden, HIDDEN, w + W4, b.g_hidden2, HIDDEN, b.hidden2);
    outer<HIDDEN, MIXED>(b.g_hidden2, HIDDEN, b.mixed, g_weights + W3);
    matmul<HIDDEN, MIXED>(b.g_hidden2, HIDDEN, w + W3, b.g_mixed, MIXED);
    for (int i = 0; i < BLOCK; i++) b.g_mixed[i * MIXED] += g_density[i];
    outer<LATENT, HIDDEN>(b.g_mixed, MIXED, b.hidden1, g_weights + W2);
    matmul<LATENT, HIDDEN, false, true>(b.g_mixed, MIXED, w + W2, b.g_hidden, HIDDEN, b.hidden1);
    outer<HIDDEN, ENCODED>(b.g_hidden, HIDDEN, b.encoded, g_weights + W1);
    matmul<HIDDEN, ENCODED>(b.g_hidden, HIDDEN, w + W1, b.g_encoded, ENCODED);
}

// Calls f(block, first sample, samples) over a chunk of the batch.
template <class F> void each_block(long count, int chunk, F&& f) {
    const long blocks = (count + BLOCK - 1) / BLOCK;
    const long end = blocks * (chunk + 1) / CHUNKS;
    auto block = std::make_unique<Block>();
    for (long i = blocks * chunk / CHUNKS; i < end; i++)
        f(*block, i * BLOCK, (int)std::min<long>(BLOCK, count - i * BLOCK));
}

}  // namespace

void field_forward(const Grid& grid, const float* table, const float* weights, const Samples& s, float* out,
                   float* encoded) {
    const Transposed t(weights);
    encode(grid, table, s.xyz, s.count, encoded);
    parallel(CHUNKS, [&](int chunk) {
        each_block(s.count, chunk, [&](Block& b, long at, int n) {
            forward_block(t, encoded, s, at, n, b);
            activate(b, n, out + 4 * at);
        });
    });
}

void field_density(const Grid& grid, const float* table, const float* weights, const float* xyz, long count, float* out,
                   float* encoded) {
    const Transposed t(weights);
    encode(grid, table, xyz, count, encoded);
    parallel(CHUNKS, [&](int chunk) {
        each_block(count, chunk, [&](Block& b, long at, int n) {
            density_block(t, encoded, count, at, n, b);
            alignas(64) float raw[BLOCK];
            for (int i = 0; i < BLOCK; i++) raw[i] = b.mixed[i * MIXED];
            for (int i = 0; i < BLOCK; i += VL) store(raw + i, density_of(load(raw + i)));
            std::copy_n(raw, n, out + at);
        });
    });
}

void field_backward(const Grid& grid, const float* weights, const Samples& s, const float* encoded, const float* g_out,
                    float* g_weights, float* g_table, Buffer<float>& kept) {
    const Transposed t(weights);
    float* g_encoded = kept.reserve((size_t)s.count * ENCODED + (size_t)CHUNKS * WEIGHTS);
    float* sums = g_encoded + (size_t)s.count * ENCODED;
    parallel(CHUNKS, [&](int chunk) {
        float* mine = sums + (size_t)chunk * WEIGHTS;
        std::fill_n(mine, WEIGHTS, 0.f);
        each_block(s.count, chunk, [&](Block& b, long at, int n) {
            alignas(64) float out[4 * BLOCK];
            forward_block(t, encoded, s, at, n, b);
            activate(b, n, out);
            backward_block(weights, out, g_out + 4 * at, n, b, mine);
            for (int l = 0; l < LEVELS; l++)
                for (int i = 0; i < n; i++)
                    store_pair(g_encoded + ((size_t)l * s.count + at + i) * FEATURES,
                               load_pair(b.g_encoded + i * ENCODED + l * FEATURES));
        });
    });
    std::copy_n(sums, WEIGHTS, g_weights);
    for (int chunk = 1; chunk < CHUNKS; chunk++)
        for (int i = 0; i < WEIGHTS; i++) g_weights[i] += sums[(size_t)chunk * WEIGHTS + i];
    scatter(grid, s.xyz, s.count, g_encoded, g_table);
}

}  // namespace lumi
