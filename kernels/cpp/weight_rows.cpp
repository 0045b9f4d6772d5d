// Some rows of a weight kept in tiles, as floats: the lookup of token embeddings; described in kernels/weight_rows.py.
#include "tiles.h"

namespace {

template <Format F>
void row(const uint8_t* tile, int64_t lane, int64_t K, float* out) {
    using L = Layout<F>;
    const int64_t groups = (K + GROUP - 1) / GROUP;
    const uint8_t* codes = tile + L::header(groups);
    float whole = 0;
    if (!L::grouped) std::memcpy(&whole, tile + 4 * lane, 4);
    for (int64_t k = 0; k < K; k++) {
        const int64_t g = k / GROUP, c = k % GROUP;
        uint32_t word;
        std::memcpy(&word, codes + (g * L::stored + c / L::in_word) * 64 + 4 * lane, 4);
        const uint32_t stored = word >> (32 / L::in_word * (c % L::in_word)) & (L::four_bits ? 15 : 255);
        const float code = (float)((int32_t)stored - (F == INT4_AFFINE ? 0 : L::four_bits ? 8 : 128));
        uint16_t scale[1], minimum[1];
        if (L::grouped) std::memcpy(scale, tile + g * L::scale_bytes + 2 * lane, 2);
        out[k] = code * (L::grouped ? half_to_float(scale[0]) : whole);
        if (L::affine) {
            std::memcpy(minimum, tile + g * L::scale_bytes + 32 + 2 * lane, 2);
            out[k] += half_to_float(minimum[0]);
        }
    }
}

template <Format F>
void each(const uint8_t* tiles, const int64_t* rows, float* out, int64_t stride, int64_t M, int64_t K) {
    const int64_t bytes = Layout<F>::tile((K + GROUP - 1) / GROUP);
    for (int64_t m = 0; m < M; m++) row<F>(tiles + rows[m] / LANES * bytes, rows[m] % LANES, K, out + m * stride);
}

}  // namespace

// out [M, K] with unit column stride.
extern "C" void weight_rows(const uint8_t* tiles, const int64_t* rows, float* out, int64_t stride, int64_t M, int64_t K,
                            int format) {
    switch (format) {
        case INT8_CHANNEL: return each<INT8_CHANNEL>(tiles, rows, out, stride, M, K);
        case INT8_GROUP: return each<INT8_GROUP>(tiles, rows, out, stride, M, K);
        case INT4_GROUP: return each<INT4_GROUP>(tiles, rows, out, stride, M, K);
        case INT4_AFFINE: return each<INT4_AFFINE>(tiles, rows, out, stride, M, K);
    }
}
