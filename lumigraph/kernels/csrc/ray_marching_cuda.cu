// Ray marching through an occupancy grid (sample.h), one ray per thread: first to count the samples, then to write them
// at offsets from a running sum of the counts.
#include "device.h"
#include "sample.h"

using namespace lumi;

// If first, distance and length are null, writes counts (rays); otherwise counts is unused.
KERNEL(march_rays)
(OccupancyGrid grid, MarchSettings steps, const float* origin, const float* direction, const float* jitter, int rays,
 int* counts, const long long* first, float* distance, float* length) {
    const int r = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (r >= rays) return;
    long long at = first ? first[r] : 0;
    const long long begin = at;
    march_ray(grid, steps, origin + 3 * (size_t)r, direction + 3 * (size_t)r, jitter[r], [&](float middle, float step) {
        if (first) distance[at] = middle, length[at] = step;
        at++;
    });
    if (!first) counts[r] = (int)(at - begin);
}
