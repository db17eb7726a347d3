/* The vector loops of resampler.pyx: a polyphase filter. Callers vouch for every pointer and length.
 *
 * Output m sits at m * down on a time axis of up ticks per input sample. The tick's remainder by
 * up is its phase and picks a row of the bank; its quotient is the offset of the row's first
 * sample in the window. So outputs that are `up` apart share a row, `down` samples further on:
 * four of them share each load of the taps. Every output sums its products in the same lanes in
 * the same order however many neighbours it is computed with, so chunking cannot change a bit.
 */
#ifndef PIPECAT_TWILIO_FIR_H
#define PIPECAT_TWILIO_FIR_H

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

INLINE int16_t round_to_pcm(float sum) {
    long rounded = lrintf(sum); /* to even, as the unit rounds by default */
    return (int16_t)(rounded > INT16_MAX ? INT16_MAX : rounded < INT16_MIN ? INT16_MIN : rounded);
}

#if HAVE_VECTORS
typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x8 __attribute__((vector_size(32)));
typedef float loose_f32x4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float loose_f32x8 __attribute__((vector_size(32), aligned(4), may_alias));

#define FOLD_f32x4(sum) (sum)
#define FOLD_f32x8(sum)                                                                            \
    (__builtin_shufflevector(sum, sum, 0, 1, 2, 3) + __builtin_shufflevector(sum, sum, 4, 5, 6, 7))

/* The sums of the lanes of a, b, c and d, as the lanes of one vector. */
INLINE f32x4 sum_lanes(f32x4 a, f32x4 b, f32x4 c, f32x4 d) {
    f32x4 ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
    f32x4 cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
    return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

/* dot_V gives one output (in every lane), dot4_V four outputs `down` samples apart. Two sums each,
 * for even and odd vectors, keep enough additions in flight to hide how long one takes. */
#define DEFINE_DOTS(V, LANES)                                                                      \
    INLINE f32x4 dot_##V(const float *taps, ptrdiff_t count, const float *x) {                     \
        V s0 = {0}, s1 = {0};                                                                      \
        for (ptrdiff_t k = 0; k < count; k += 2 * LANES) {                                         \
            s0 += *(const loose_##V *)(taps + k) * *(const loose_##V *)(x + k);                    \
            s1 += *(const loose_##V *)(taps + k + LANES) * *(const loose_##V *)(x + k + LANES);    \
        }                                                                                          \
        s0 += s1;                                                                                  \
        f32x4 s = FOLD_##V(s0);                                                                    \
        return sum_lanes(s, s, s, s);                                                              \
    }                                                                                              \
    INLINE f32x4 dot4_##V(const float *taps, ptrdiff_t count, const float *x, ptrdiff_t down) {    \
        V a0 = {0}, a1 = {0}, b0 = {0}, b1 = {0}, c0 = {0}, c1 = {0}, d0 = {0}, d1 = {0};          \
        const float *b = x + down, *c = b + down, *d = c + down;                                   \
        for (ptrdiff_t k = 0; k < count; k += 2 * LANES) {                                         \
            V t0 = *(const loose_##V *)(taps + k);                                                 \
            V t1 = *(const loose_##V *)(taps + k + LANES);                                         \
            a0 += t0 * *(const loose_##V *)(x + k), a1 += t1 * *(const loose_##V *)(x + k + LANES); \
            b0 += t0 * *(const loose_##V *)(b + k), b1 += t1 * *(const loose_##V *)(b + k + LANES); \
            c0 += t0 * *(const loose_##V *)(c + k), c1 += t1 * *(const loose_##V *)(c + k + LANES); \
            d0 += t0 * *(const loose_##V *)(d + k), d1 += t1 * *(const loose_##V *)(d + k + LANES); \
        }                                                                                          \
        a0 += a1, b0 += b1, c0 += c1, d0 += d1;                                                    \
        return sum_lanes(FOLD_##V(a0), FOLD_##V(b0), FOLD_##V(c0), FOLD_##V(d0));                  \
    }
DEFINE_DOTS(f32x4, 4)
DEFINE_DOTS(f32x8, 8)

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

INLINE int16_t dot(int lanes, const float *taps, ptrdiff_t count, const float *x) {
    int16_t pcm[4];
    round_four_to_pcm(lanes == 8 ? dot_f32x8(taps, count, x) : dot_f32x4(taps, count, x), pcm);
    return pcm[0];
}

INLINE void dot4(int lanes, const float *taps, ptrdiff_t count, const float *x, ptrdiff_t down,
                 int16_t *pcm) {
    round_four_to_pcm(lanes == 8 ? dot4_f32x8(taps, count, x, down)
                                 : dot4_f32x4(taps, count, x, down), pcm);
}
#else
INLINE int16_t dot(int lanes, const float *taps, ptrdiff_t count, const float *x) {
    float sums[8] = {0};
    (void)lanes;
    for (ptrdiff_t k = 0; k < count; k += 8) {
        for (int lane = 0; lane < 8; lane++) sums[lane] += taps[k + lane] * x[k + lane];
    }
    return round_to_pcm(((sums[0] + sums[4]) + (sums[2] + sums[6])) +
                        ((sums[1] + sums[5]) + (sums[3] + sums[7])));
}

INLINE void dot4(int lanes, const float *taps, ptrdiff_t count, const float *x, ptrdiff_t down,
                 int16_t *pcm) {
    for (int i = 0; i < 4; i++) pcm[i] = dot(lanes, taps, count, x + i * down);
}
#endif

/* Computes `outputs` samples; the first has phase `phase` and its row starts at window[0]. */
INLINE void fir_on(int lanes, const float *bank, ptrdiff_t taps, ptrdiff_t up, ptrdiff_t down,
                   ptrdiff_t phase, const float *window, int16_t *pcm, ptrdiff_t outputs) {
    ptrdiff_t whole = down / up, part = down % up;
    for (ptrdiff_t first = 0; first < up && first < outputs; first++) {
        const float *row = bank + phase * taps, *x = window;
        int16_t *out = pcm + first;
        ptrdiff_t left = (outputs - first + up - 1) / up;
        for (; left >= 4; left -= 4, x += 4 * down, out += 4 * up) {
            int16_t four[4];
            dot4(lanes, row, taps, x, down, four);
            out[0] = four[0], out[up] = four[1], out[2 * up] = four[2], out[3 * up] = four[3];
        }
        for (; left > 0; left--, x += down, out += up) *out = dot(lanes, row, taps, x);
        window += whole, phase += part;
        if (phase >= up) window++, phase -= up;
    }
}

ON_EACH_PATH(fir, (const float *bank, ptrdiff_t taps, ptrdiff_t up, ptrdiff_t down,
                   ptrdiff_t phase, const float *window, int16_t *pcm, ptrdiff_t outputs),
             bank, taps, up, down, phase, window, pcm, outputs)

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

#endif
