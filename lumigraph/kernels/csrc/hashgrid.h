// The field of instant-NGP (sample.h) on the CPU: a hash grid of features, and two tiny networks behind it.
//
// Networks run over blocks of samples, one sample a row, features along the lanes. Backward does a block's forward
// again: that costs less than to keep a kilobyte a sample. The gradient of the table is added up level by level, one
// task each, so no two threads write to one entry and no sum depends on their number.
#pragma once
#include "buffer.h"
#include "sample.h"

namespace lumi {

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
