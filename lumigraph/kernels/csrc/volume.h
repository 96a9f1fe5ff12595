// Emission and absorption along rays (Max 1995; Mildenhall et al. 2020, eq. 3), over packed samples: those of ray r are
// first[r] .. first[r + 1].
//
//   alpha_i = 1 - exp(-density_i length_i),  T_i = prod_{j<i} (1 - alpha_j),  w_i = T_i alpha_i
//   rgb = sum w_i c_i,  transmittance = prod (1 - alpha_i),  depth = sum w_i t_i
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
// The gradients of all four outputs -> that of density and colour, (S, 4).
void light_backward(const Packed&, const Light& result, const Light& gradient, float* out);

}  // namespace lumi
