// Adam over plain arrays (sample.h).
#include "device.h"
#include "sample.h"

using namespace lumi;

// Where nothing was ever learned, as in most of a hash table, nothing moves and nothing is written.
KERNEL(adam_step)(int n, float* p, float* g, float* m, float* v, AdamStep step) {
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i >= n || (g[i] == 0 && m[i] == 0 && v[i] == 0)) return;
    adam(p[i], g[i], m[i], v[i], step);
}
