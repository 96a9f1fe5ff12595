// The field of instant-NGP (sample.h) on the CPU: a hash grid of features and two small MLPs.
//
// The MLPs run over blocks of samples, one sample per row, features along the lanes. Backward recomputes the forward
// pass of a block, which costs less than storing a kilobyte per sample. The table gradient is summed level by level,
// one task each: no two threads write to one row, and sums do not depend on the number of threads.
#pragma once
#include "buffer.h"
#include "sample.h"

namespace lumi {

struct Grid {
    Level level[LEVELS];
    long entries;  // rows of all levels
};

struct Samples {
    const float *xyz, *direction;  // (count, 3) positions in the unit cube; directions of length 1
    long count;
};

// out (count, 4): density, red, green, blue. encoded (LEVELS, count, FEATURES): the grid features, saved for backward.
void field_forward(const Grid&, const float* table, const float* weights, const Samples&, float* out, float* encoded);
// out (count): the density alone.
void field_density(const Grid&, const float* table, const float* weights, const float* xyz, long count, float* out,
                   float* encoded);
// Writes g_weights (WEIGHTS), adds to g_table (entries, 2). `kept` is scratch.
void field_backward(const Grid&, const float* weights, const Samples&, const float* encoded, const float* g_out,
                    float* g_weights, float* g_table, Buffer<float>& kept);

}  // namespace lumi
