// Rows taken together: a value loaded for one of them serves all, while their sums stay in registers.
#pragma once

#include <cstdlib>
#include <memory>
#include <type_traits>

#include "vectors.h"

constexpr int ROWS = WIDTH == 16 ? 8 : 4;  // most rows of a block

INLINE int block_rows(int64_t left) { return left >= ROWS ? ROWS : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

// Calls body(size, first) for the blocks of `rows` rows in turn: ROWS rows while there are as many, then 4, 2 and 1.
// `size` is an integral_constant.
template <typename Body>
void each_block(int64_t rows, const Body& body) {
    for (int64_t first = 0, size; first < rows; first += size) {
        size = block_rows(rows - first);
        if (size == ROWS)
            body(std::integral_constant<int, ROWS>{}, first);
        else if (size == 4)
            body(std::integral_constant<int, 4>{}, first);
        else if (size == 2)
            body(std::integral_constant<int, 2>{}, first);
        else
            body(std::integral_constant<int, 1>{}, first);
    }
}

// Writes the first `rows` of sixteen lanes.
INLINE void write_lanes(float* to, const floats* v, int64_t rows) {
    if (rows >= LANES)
        for (int p = 0; p < PARTS; p++) store(to + p * WIDTH, v[p]);
    else
        std::memcpy(to, v, (size_t)rows * sizeof(float));
}

// Memory that a thread keeps from one call to the next.
struct Scratch {
    std::unique_ptr<char, decltype(&std::free)> bytes{nullptr, &std::free};
    size_t size = 0;
    char* at_least(size_t need) {
        if (need > size) {
            size = (need * 5 / 4 + 4095) / 4096 * 4096;
            bytes.reset((char*)std::aligned_alloc(64, size));
        }
        return bytes.get();
    }
};
