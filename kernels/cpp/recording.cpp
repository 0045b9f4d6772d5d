// Many calls of the operators in one, so that a decode step crosses from Python once; see kernels/cpp/recording.py.
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

extern "C" {
void weight_only_linear(const uint8_t*, const float*, int64_t, float*, int64_t, int64_t, int64_t, int64_t, int, int);
void rms_norm(const float*, int64_t, const float*, int64_t, float*, int64_t, const float*, float*, int64_t, int64_t, int64_t,
              float, int);
void swiglu(const float*, int64_t, const float*, int64_t, float*, int64_t, int64_t, int64_t, int);
void rope_and_cache(const float*, const float*, const float*, float*, float*, float*, const int64_t*, const int64_t*,
                    const float*, const float*, const int64_t*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int,
                    int);
void paged_attention(const float*, const float*, const float*, float*, const int32_t*, const int32_t*, const int32_t*,
                     const int64_t*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, float, int);
void weight_rows(const uint8_t*, const int64_t*, float*, int64_t, int64_t, int64_t, int);
}

namespace {

constexpr int64_t WORDS = 20;  // of a call: which operator, then its arguments

template <typename T>
T argument(int64_t word) {
    if constexpr (std::is_pointer_v<T>) {
        return (T)word;
    } else if constexpr (std::is_same_v<T, float>) {
        float value;
        std::memcpy(&value, &word, sizeof value);  // in the word's first four bytes
        return value;
    } else {
        return (T)word;
    }
}

template <typename... A, size_t... I>
void made(void (*function)(A...), const int64_t* words, std::index_sequence<I...>) {
    static_assert(sizeof...(A) < WORDS);
    function(argument<A>(words[I])...);
}

template <typename... A>
void made(void (*function)(A...), const int64_t* words) {
    made(function, words, std::index_sequence_for<A...>());
}

}  // namespace

// `words`: [count, WORDS]; operators are numbered as in `RECORDED`.
extern "C" void replay(const int64_t* words, int64_t count) {
    for (const int64_t* call = words; call < words + count * WORDS; call += WORDS) switch (call[0]) {
            case 0: made(weight_only_linear, call + 1); break;
            case 1: made(rms_norm, call + 1); break;
            case 2: made(swiglu, call + 1); break;
            case 3: made(rope_and_cache, call + 1); break;
            case 4: made(paged_attention, call + 1); break;
            case 5: made(weight_rows, call + 1); break;
        }
}
