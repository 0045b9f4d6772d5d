// What the memory can deliver: a read of every byte with nothing to compute.
#include "pool.h"
#include "vectors.h"

extern "C" uint32_t read_bytes(const uint8_t* from, int64_t bytes, int threads) {
    constexpr int64_t CHUNK = 1 << 16;
    std::atomic<uint32_t> all{0};
    Pool::run(threads, bytes / CHUNK, [&](int64_t c) {
        u32x16 a = {}, b = {}, d = {}, e = {};
        for (const uint8_t* p = from + c * CHUNK; p < from + (c + 1) * CHUNK; p += 256) {
            for (int line = 0; line < 4; line++) __builtin_prefetch(p + 2048 + 64 * line);
            a ^= load<u32x16>(p);
            b ^= load<u32x16>(p + 64);
            d ^= load<u32x16>(p + 128);
            e ^= load<u32x16>(p + 192);
        }
        a ^= b ^ d ^ e;
        uint32_t folded = 0;
        for (int i = 0; i < LANES; i++) folded ^= a[i];
        all.fetch_xor(folded, std::memory_order_relaxed);
    });
    return all.load();
}
