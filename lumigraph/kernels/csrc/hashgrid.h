// The field of instant-NGP (Mueller et al. 2022) on the CPU: a hash grid of features, and two tiny networks behind it.
//
//   encode:   16 levels, each trilinear between 8 entries of 2 features                 -> 32
//   density:  32 -> 64 relu -> 16; density = exp(first), all 16 go on
//   colour:   16 + 16 spherical harmonics of the direction -> 64 relu -> 64 relu -> 3; colour = sigmoid
//
// Networks run over blocks of samples, one sample a row, features along the lanes. Backward does a block's forward
// again: that costs less than to keep a kilobyte a sample. The gradient of the table is added up level by level, one
// task each, so no two threads write to one entry and no sum depends on their number.
#pragma once
#include <cstdint>

#include "buffer.h"

namespace lumi {

constexpr int LEVELS = 16, FEATURES = 2, ENCODED = LEVELS * FEATURES, HIDDEN = 64, LATENT = 16, HARMONICS = 16;
constexpr int MIXED = LATENT + HARMONICS;

// One level of the grid: `side` vertices along each axis, `entries` of them stored from `first` on; all of them where
// they fit (`dense`), else by hash, and then `entries` is a power of two.
struct Level {
    float scale;
    uint32_t side, first, entries;
    bool dense;
};

// Where each matrix (out, in), row-major, begins in the flat weights.
constexpr int W1 = 0, W2 = W1 + HIDDEN * ENCODED, W3 = W2 + LATENT * HIDDEN, W4 = W3 + HIDDEN * MIXED,
              W5 = W4 + HIDDEN * HIDDEN, WEIGHTS = W5 + 3 * HIDDEN;

struct Grid {
    Level level[LEVELS];
    long entries;  // of all levels
};

struct Samples {
    const float *xyz, *direction;  // (count, 3): in the unit cube; of length 1
    long count;
};

// out (count, 4): density, red, green, blue. encoded (LEVELS, count, FEATURES) is what the grid says, kept for
// backward.
void field_forward(const Grid&, const float* table, const float* weights, const Samples&, float* out, float* encoded);
// out (count): the density alone.
void field_density(const Grid&, const float* table, const float* weights, const float* xyz, long count, float* out,
                   float* encoded);
// g_weights (WEIGHTS) is written, g_table (entries, 2) is added to; `kept` is scratch.
void field_backward(const Grid&, const float* weights, const Samples&, const float* encoded, const float* g_out,
                    float* g_weights, float* g_table, Buffer<float>& kept);

}  // namespace lumi
