#pragma once
#include <cstdint>

namespace lumi {

struct LossInput {
    int width, height;
    const float* rgb;        // 3 planes
    const uint8_t* target;   // 3 planes, 0..255
    const uint8_t* mask;     // 1 plane, 0 = ignore, 255 = use; or null
    float ssim, square;      // weights of 1 - SSIM and of the squared error; the remainder is L1
    float gain[3], bias[3];  // exposure of this photo: gain * rgb + bias is compared with it
};
struct LossOutput {
    float* gradient;          // 3 planes, dL/drgb, or null
    float* error;             // 1 plane, sum over channels of |difference|, or null
    float* scratch;           // 9 planes
    double l1, mse, ssim;     // means over pixels and channels, masked
    double gain[3], bias[3];  // dL/dgain, dL/dbias
};

void photometric_loss(const LossInput& in, LossOutput& out);

}  // namespace lumi
