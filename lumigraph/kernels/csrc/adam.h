// Adam (Kingma and Ba 2015) over plain arrays.
#pragma once

namespace lumi {

struct AdamSettings {
    float lr, beta1, beta2, epsilon;
    long step;  // from 1, for the bias correction
};

// Updates p, m and v, and sets g to 0.
void adam(long n, float* p, float* g, float* m, float* v, const AdamSettings&);

}  // namespace lumi
