// y = g / (1 + e^-g) * u; what it computes is described in kernels/gates.py.
#include <algorithm>

#include "lanes.h"
#include "pool.h"

namespace {

constexpr int64_t SMALL = 1 << 14;  // elements below which a second thread costs more than it saves

INLINE f32x16 gated(f32x16 g, f32x16 u) { return g / (exponential(-g) + 1.0f) * u; }

void row(const float* g, const float* u, float* y, int64_t N) {
    int64_t at = 0;
    for (; at + LANES <= N; at += LANES) store(y + at, gated(load<f32x16>(g + at), load<f32x16>(u + at)));
    if (at < N) {
        f32x16 a = {}, b = {};
        const size_t left = (size_t)(N - at) * sizeof(float);
        std::memcpy(&a, g + at, left);
        std::memcpy(&b, u + at, left);
        a = gated(a, b);
        std::memcpy(y + at, &a, left);
    }
}

}  // namespace

// g, u and y are [M, N] with unit column stride; y may be g or u.
extern "C" void swiglu(const float* g, int64_t g_stride, const float* u, int64_t u_stride, float* y, int64_t y_stride,
                       int64_t M, int64_t N, int threads) {
    const int64_t each = std::max<int64_t>(1, SMALL / 2 / std::max<int64_t>(1, N));
    Pool::run(M * N <= SMALL ? 1 : threads, (M + each - 1) / each, [&](int64_t c) {
        for (int64_t m = c * each; m < std::min(M, (c + 1) * each); m++)
            row(g + m * g_stride, u + m * u_stride, y + m * y_stride, N);
    });
}
