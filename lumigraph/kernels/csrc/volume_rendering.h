// Volume rendering (sample.h) on the CPU, over packed samples. Ray r has the samples first[r] .. first[r + 1].
#pragma once
#include <cstdint>

namespace lumi {

struct Packed {
    const float *density_rgb, *distance, *length;  // (S, 4), (S), (S)
    const int64_t* first;                          // (R + 1)
    long rays;
};
struct Light {
    float *rgb, *transmittance, *depth, *weight;  // (R, 3), (R), (R), (S)
};

void light(const Packed&, const Light& out);
// Gradients of all four outputs -> gradient of density and colour (S, 4).
void light_backward(const Packed&, const Light& result, const Light& gradient, float* out);

}  // namespace lumi
