// What the processor can compute: products of bytes whose operands never leave the first cache.
#include "pool.h"
#include "vectors.h"

// Does `rounds` rounds of 8 vector products in each of 64 chunks; returns how many operations that is.
extern "C" int64_t int8_rate(int64_t rounds, int threads) {
    constexpr int SUMS = 8, LEFT = 16;
    static std::atomic<int32_t> sink{0};
    Pool::run(threads, 64, [&](int64_t) {
        int32_t left[LEFT * WIDTH], right[SUMS * WIDTH];
        for (int i = 0; i < LEFT * WIDTH; i++) left[i] = 0x01020301 + i;
        for (int i = 0; i < SUMS * WIDTH; i++) right[i] = 0x02010102 - i;
        ints sums[SUMS] = {}, b[SUMS];
        for (int i = 0; i < SUMS; i++) b[i] = load<ints>(right + i * WIDTH);
        for (int64_t round = 0; round < rounds; round++) {
            const ints a = load<ints>(left + (round % LEFT) * WIDTH);
            for (int i = 0; i < SUMS; i++) sums[i] = add_products(sums[i], a, b[i]);
        }
        int32_t folded = 0;
        for (int i = 0; i < SUMS; i++)
            for (int lane = 0; lane < WIDTH; lane++) folded ^= sums[i][lane];
        sink.fetch_xor(folded, std::memory_order_relaxed);
    });
    return 64 * rounds * SUMS * WIDTH * DEPTH * 2;
}
