// Adam (Kingma and Ba 2015) over plain arrays.
#pragma once

namespace lumi {

struct AdamSettings {
    float lr, beta1, beta2, epsilon;
    long step;  // from 1 on, for the bias correction
};

// p, m and v are updated, g becomes 0 for the next round of sums.
void adam(long n, float* p, float* g, float* m, float* v, const AdamSettings&);

}  // namespace lumi
