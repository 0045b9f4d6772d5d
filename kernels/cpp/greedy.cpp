// The largest of each row's numbers; described in kernels/sampling.py.
#include <cfloat>
#include <cmath>

#include "pool.h"
#include "vectors.h"

namespace {

constexpr int64_t SMALL = 1 << 16;  // numbers below which a second thread costs more than it saves

// Its place, of several the lowest; +inf counts as the largest finite number, NaN and -inf not at all. -1 without any.
int64_t largest(const float* x, int64_t N) {
    constexpr int AT_ONCE = 4;
    floats best[AT_ONCE];
    ints place[AT_ONCE], here[AT_ONCE];
    for (int i = 0; i < AT_ONCE; i++) {
        best[i] = all(-INFINITY), place[i] = all(-1);
        for (int lane = 0; lane < WIDTH; lane++) here[i][lane] = i * WIDTH + lane;
    }
    int64_t at = 0;
    for (; at + AT_ONCE * WIDTH <= N; at += AT_ONCE * WIDTH)
        for (int i = 0; i < AT_ONCE; i++) {
            floats v = load<floats>(x + at + i * WIDTH);
            v = v > all(FLT_MAX) ? all(FLT_MAX) : v;
            const ints better = v > best[i];
            best[i] = better ? v : best[i];
            place[i] = better ? here[i] : place[i];
            here[i] += AT_ONCE * WIDTH;
        }
    float top = -INFINITY;
    int64_t found = -1;
    const auto meet = [&](float v, int64_t n) {
        if (v > top || (v == top && n < found)) top = v, found = n;
    };
    for (int i = 0; i < AT_ONCE; i++)
        for (int lane = 0; lane < WIDTH; lane++)
            if (place[i][lane] >= 0) meet(best[i][lane], place[i][lane]);
    for (; at < N; at++) meet(x[at] > FLT_MAX ? FLT_MAX : x[at], at);
    return found;
}

}  // namespace

// x [M, N] with unit column stride, N below 2^31; out [M].
extern "C" void greedy(const float* x, int64_t stride, int64_t* out, int64_t M, int64_t N, int threads) {
    Pool::run(M * N <= SMALL ? 1 : threads, M, [&](int64_t m) { out[m] = largest(x + m * stride, N); });
}
