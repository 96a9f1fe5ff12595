// Adam over plain arrays (sample.h).
#include "device.h"
#include "sample.h"

using namespace lumi;

// Elements whose gradient has always been zero, most of a hash table, are neither moved nor written.
KERNEL(adam_step)(int n, float* p, float* g, float* m, float* v, AdamStep step) {
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i >= n || (g[i] == 0 && m[i] == 0 && v[i] == 0)) return;
    adam(p[i], g[i], m[i], v[i], step);
}
