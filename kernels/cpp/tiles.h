// How weights of 8 and 4 bits lie in memory; described in kernels/weight_formats.py.
#pragma once

#include "vectors.h"

constexpr int64_t GROUP = 32;  // columns that share a scale, of W where it has groups, of x in fast mode

enum Format { INT8_CHANNEL = 0, INT8_GROUP = 1, INT4_GROUP = 2, INT4_AFFINE = 3 };

template <Format F>
struct Layout {
    static constexpr bool four_bits = F == INT4_GROUP || F == INT4_AFFINE;
    static constexpr bool grouped = F != INT8_CHANNEL;
    static constexpr bool affine = F == INT4_AFFINE;
    static constexpr int stored = four_bits ? 4 : 8;           // 32-bit words a row and group
    static constexpr int in_word = four_bits ? 8 : 4;          // codes in such a word
    static constexpr int64_t scale_bytes = affine ? 64 : 32;   // of one group: 16 halves, and 16 minima
    static constexpr bool narrow = four_bits && NARROW;
    static constexpr int depth = narrow ? 4 : DEPTH;           // codes in a lane of an integer product
    static constexpr int cells = GROUP / depth;                // such products a group
    static constexpr int bias = four_bits ? 8 : DEPTH == 4 ? 128 : 0;  // what integer products add to a code
    static int64_t header(int64_t groups) {
        return grouped ? (groups * scale_bytes + 63) / 64 * 64 : LANES * (int64_t)sizeof(float);
    }
    static int64_t tile(int64_t groups) { return header(groups) + groups * stored * 64; }
};
