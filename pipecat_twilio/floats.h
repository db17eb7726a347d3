/* Floats for the filter loops: from PCM, as vectors, and back to PCM. */
#ifndef PIPECAT_TWILIO_FLOATS_H
#define PIPECAT_TWILIO_FLOATS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vectors.h"

#if HAVE_VECTORS && defined(__SSE2__)
#include <emmintrin.h>
#elif HAVE_VECTORS && defined(__aarch64__)
#include <arm_neon.h>
#endif

INLINE void pcm_to_float_on(int lanes, const uint8_t *pcm, float *samples, ptrdiff_t count) {
    (void)lanes;
    for (ptrdiff_t i = 0; i < count; i++) {
        int16_t sample; /* by memcpy: a caller's buffer may start at an odd address */
        memcpy(&sample, pcm + 2 * i, sizeof sample);
        samples[i] = sample;
    }
}

ON_EACH_PATH(pcm_to_float, (const uint8_t *pcm, float *samples, ptrdiff_t count),
             pcm, samples, count)

INLINE int16_t round_to_pcm(float sum) {
    long rounded = lrintf(sum); /* to even, as the unit rounds by default */
    return (int16_t)(rounded > INT16_MAX ? INT16_MAX : rounded < INT16_MIN ? INT16_MIN : rounded);
}

#if HAVE_VECTORS
typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x8 __attribute__((vector_size(32)));
typedef float loose_f32x4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float loose_f32x8 __attribute__((vector_size(32), aligned(4), may_alias));

#define AT(V, address) (*(const loose_##V *)(address))

/* GCC would load a value again for each instruction that can take it from memory. */
#if defined(__SSE2__) && !defined(__clang__)
#define IN_REGISTER(value) __asm__("" : "+x"(value))
#else
#define IN_REGISTER(value) (void)0
#endif

/* One load of samples, s, for all that is to be done with them. */
#define WITH(V, address, ...)                                                                      \
    do {                                                                                           \
        V s = AT(V, address);                                                                      \
        IN_REGISTER(s);                                                                            \
        __VA_ARGS__;                                                                               \
    } while (0)

/* The lanes of two vectors, numbered through, in another order. */
#if defined(__clang__)
#define SHUFFLE_4 __builtin_shufflevector
#define SHUFFLE_8 __builtin_shufflevector
#else
typedef int i32x4 __attribute__((vector_size(16)));
typedef int i32x8 __attribute__((vector_size(32)));
#define SHUFFLE_4(a, b, ...) __builtin_shuffle(a, b, (i32x4){__VA_ARGS__})
#define SHUFFLE_8(a, b, ...) __builtin_shuffle(a, b, (i32x8){__VA_ARGS__})
#endif

/* Rounds to even and saturates four sums at once. */
INLINE void round_four_to_pcm(f32x4 sums, int16_t *pcm) {
#if defined(__SSE2__)
    __m128i rounded = _mm_cvtps_epi32((__m128)sums);
    rounded = _mm_packs_epi32(rounded, rounded);
    memcpy(pcm, &rounded, 4 * sizeof *pcm);
#elif defined(__aarch64__)
    vst1_s16(pcm, vqmovn_s32(vcvtnq_s32_f32((float32x4_t)sums)));
#else
    for (int i = 0; i < 4; i++) pcm[i] = round_to_pcm(sums[i]);
#endif
}
#endif

#endif
