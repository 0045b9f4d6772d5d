// Arithmetic of sixteen floats at a time, where a lane is a key or a column and nothing need stay in registers for long.
// The same bits on every machine with fused multiply-add.
#pragma once

#include <cmath>

#include "vectors.h"

INLINE f32x16 splat(float v) { return v - f32x16{}; }

// a * b + c, fused where the processor can.
INLINE f32x16 multiply_add(f32x16 a, f32x16 b, f32x16 c) {
    f32x16 out;
    for (int part = 0; part < PARTS; part++) {
        const int at = part * (int)sizeof(floats);
        const floats x = load<floats>((const char*)&a + at), y = load<floats>((const char*)&b + at);
        store((char*)&out + at, fused(x, y, load<floats>((const char*)&c + at)));
    }
    return out;
}

// 2^n for n in -126 .. 127.
INLINE f32x16 power_of_two(i32x16 n) { return (f32x16)((n + 127) << 23); }

// e^x within two units in the last place.
INLINE f32x16 exponential(f32x16 x) {
    const f32x16 highest = splat(89.0f), lowest = splat(-104.0f);  // beyond: infinity, and zero
    x = x > highest ? highest : x;  // a comparison with NaN is false: it stays
    x = x < lowest ? lowest : x;
    const f32x16 magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    const f32x16 whole = multiply_add(x, splat(1.44269504f), magic) - magic;
    f32x16 r = multiply_add(whole, splat(-0.693359375f), x);  // ln 2 in two parts
    r = multiply_add(whole, splat(2.12194440e-4f), r);
    f32x16 p = splat(1.9875691500e-4f);
    p = multiply_add(p, r, splat(1.3981999507e-3f));
    p = multiply_add(p, r, splat(8.3334519073e-3f));
    p = multiply_add(p, r, splat(4.1665795894e-2f));
    p = multiply_add(p, r, splat(1.6666665459e-1f));
    p = multiply_add(p, r, splat(5.0000001201e-1f));
    p = multiply_add(p, r * r, r) + 1.0f;
    const i32x16 n = __builtin_convertvector(whole, i32x16), half = n >> 1;
    return p * power_of_two(half) * power_of_two(n - half);  // two steps reach subnormal numbers and infinity
}
