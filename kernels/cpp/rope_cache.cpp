// Rotary embedding of queries and keys, and the write of keys and values; described in kernels/rope_cache.py.
#include <algorithm>
#include <cstring>

#include "pool.h"
#include "vectors.h"

namespace {

constexpr int64_t SMALL = 1 << 14;  // elements below which a second thread costs more than it saves

// One head: pairs (i, i + half), or (2i, 2i + 1) when interleaved; y may be x.
INLINE void turn(const float* x, float* y, const float* cos, const float* sin, int64_t half, int64_t D, bool interleaved) {
    int64_t i = 0;
    if (!interleaved) {
        for (; i + LANES <= half; i += LANES) {
            const f32x16 a = load<f32x16>(x + i), b = load<f32x16>(x + half + i);
            const f32x16 c = load<f32x16>(cos + i), s = load<f32x16>(sin + i);
            store(y + i, a * c - b * s);
            store(y + half + i, b * c + a * s);
        }
    }
    for (; i < half; i++) {
        const int64_t first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + half;
        const float a = x[first], b = x[second];
        y[first] = a * cos[i] - b * sin[i];
        y[second] = b * cos[i] + a * sin[i];
    }
    if (y != x && 2 * half < D) std::memcpy(y + 2 * half, x + 2 * half, (size_t)(D - 2 * half) * sizeof(float));
}

}  // namespace

// `strides`: of q by token and head, of k, v and out likewise, of keys and values by page, slot and head: 14 numbers.
extern "C" void rope_and_cache(const float* q, const float* k, const float* v, float* out, float* keys, float* values,
                               const int64_t* positions, const int64_t* slots, const float* cos, const float* sin,
                               const int64_t* strides, int64_t T, int64_t H, int64_t G, int64_t D, int64_t half,
                               int64_t page, int interleaved, int threads) {
    const int64_t *qs = strides, *ks = strides + 2, *vs = strides + 4, *os = strides + 6, *kc = strides + 8,
                  *vc = strides + 11;
    Pool::run(T * (H + 2 * G) * D <= SMALL ? 1 : threads, T, [&](int64_t t) {
        const float *c = cos + positions[t] * half, *s = sin + positions[t] * half;
        for (int64_t h = 0; h < H; h++)
            turn(q + t * qs[0] + h * qs[1], out + t * os[0] + h * os[1], c, s, half, D, interleaved);
        if (slots[t] < 0) return;
        const int64_t at = slots[t] / page, place = slots[t] % page;
        for (int64_t g = 0; g < G; g++) {
            turn(k + t * ks[0] + g * ks[1], keys + at * kc[0] + place * kc[1] + g * kc[2], c, s, half, D, interleaved);
            std::memcpy(values + at * vc[0] + place * vc[1] + g * vc[2], v + t * vs[0] + g * vs[1],
                        (size_t)D * sizeof(float));
        }
    });
}
