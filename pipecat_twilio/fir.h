/* The vector loops of resampler.pyx: a polyphase filter. Callers vouch for pointers and lengths.
 *
 * Output m lies at m * down on a time axis of up ticks per input sample. The remainder of that by
 * up is its phase; the quotient says where in the window its samples are. The bank has a row of
 * taps for each phase, in the order in which consecutive outputs use them, so that the bank is
 * read from end to end. Outputs that are `up` apart share a row, their samples `down` apart: a
 * whole round of all rows is computed for eight of them together, or for two. Every output sums
 * its products in the same lanes in the same order in whatever company it is computed, so that
 * chunking cannot change a bit.
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

struct bank {
    const float *start, *end;
    ptrdiff_t taps, up;
    ptrdiff_t whole, part; /* of down / up: how far on the next output's samples are */
};

/* Where an output gets its taps and its samples from. */
struct cursor {
    const float *row, *x;
    ptrdiff_t phase;
};

INLINE struct cursor next(const struct bank *bank, struct cursor at) {
    at.row += bank->taps, at.x += bank->whole, at.phase += bank->part;
    if (at.row == bank->end) at.row = bank->start;
    if (at.phase >= bank->up) at.x++, at.phase -= bank->up;
    return at;
}

/* Fills c with the next `count` cursors, 1 to 4, and more of the last; returns the one after. */
INLINE struct cursor next_four(const struct bank *bank, struct cursor at, ptrdiff_t count,
                               struct cursor *c) {
    for (int i = 0; i < 4; i++) {
        c[i] = at;
        if (i + 1 < count) at = next(bank, at);
    }
    return next(bank, at);
}

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

#define FOLD_f32x4(sum) (sum)
#define FOLD_f32x8(sum)                                                                            \
    (__builtin_shufflevector(sum, sum, 0, 1, 2, 3) + __builtin_shufflevector(sum, sum, 4, 5, 6, 7))

/* The sums of the lanes of a, b, c and d, as the lanes of one vector. */
INLINE f32x4 sum_lanes(f32x4 a, f32x4 b, f32x4 c, f32x4 d) {
    f32x4 ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
    f32x4 cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
    return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

/* dot_RxN: N outputs, their samples `down` apart, from each of R rows of taps. Every load of taps
 * serves N outputs, and eight sums, where there are that many, hide how long an addition takes.
 * The sums are in the order of the rows, N for each. */
#define MAC(V, sum, t, x) sum += AT(V, t + k) * AT(V, x + k)
#define DEFINE_DOTS(V, LANES)                                                                      \
    INLINE void dot_1x8_##V(ptrdiff_t taps, const float *t, const float *x, ptrdiff_t down,        \
                            f32x4 *sums) {                                                         \
        V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0}, s6 = {0}, s7 = {0};          \
        const float *x1 = x + down, *x2 = x1 + down, *x3 = x2 + down, *x4 = x3 + down;             \
        const float *x5 = x4 + down, *x6 = x5 + down, *x7 = x6 + down;                             \
        for (ptrdiff_t k = 0; k < taps; k += LANES) {                                              \
            MAC(V, s0, t, x), MAC(V, s1, t, x1), MAC(V, s2, t, x2), MAC(V, s3, t, x3);             \
            MAC(V, s4, t, x4), MAC(V, s5, t, x5), MAC(V, s6, t, x6), MAC(V, s7, t, x7);            \
        }                                                                                          \
        sums[0] = sum_lanes(FOLD_##V(s0), FOLD_##V(s1), FOLD_##V(s2), FOLD_##V(s3));               \
        sums[1] = sum_lanes(FOLD_##V(s4), FOLD_##V(s5), FOLD_##V(s6), FOLD_##V(s7));               \
    }                                                                                              \
    INLINE void dot_4x2_##V(ptrdiff_t taps, const struct cursor *c, ptrdiff_t down, f32x4 *sums) { \
        V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0}, s6 = {0}, s7 = {0};          \
        const float *t0 = c[0].row, *t1 = c[1].row, *t2 = c[2].row, *t3 = c[3].row;                \
        const float *x0 = c[0].x, *x1 = c[1].x, *x2 = c[2].x, *x3 = c[3].x;                        \
        const float *y0 = x0 + down, *y1 = x1 + down, *y2 = x2 + down, *y3 = x3 + down;            \
        for (ptrdiff_t k = 0; k < taps; k += LANES) {                                              \
            MAC(V, s0, t0, x0), MAC(V, s1, t0, y0), MAC(V, s2, t1, x1), MAC(V, s3, t1, y1);        \
            MAC(V, s4, t2, x2), MAC(V, s5, t2, y2), MAC(V, s6, t3, x3), MAC(V, s7, t3, y3);        \
        }                                                                                          \
        sums[0] = sum_lanes(FOLD_##V(s0), FOLD_##V(s1), FOLD_##V(s2), FOLD_##V(s3));               \
        sums[1] = sum_lanes(FOLD_##V(s4), FOLD_##V(s5), FOLD_##V(s6), FOLD_##V(s7));               \
    }                                                                                              \
    INLINE void dot_4x1_##V(ptrdiff_t taps, const struct cursor *c, f32x4 *sums) {                 \
        V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                                                  \
        const float *t0 = c[0].row, *t1 = c[1].row, *t2 = c[2].row, *t3 = c[3].row;                \
        const float *x0 = c[0].x, *x1 = c[1].x, *x2 = c[2].x, *x3 = c[3].x;                        \
        for (ptrdiff_t k = 0; k < taps; k += LANES) {                                              \
            MAC(V, s0, t0, x0), MAC(V, s1, t1, x1), MAC(V, s2, t2, x2), MAC(V, s3, t3, x3);        \
        }                                                                                          \
        sums[0] = sum_lanes(FOLD_##V(s0), FOLD_##V(s1), FOLD_##V(s2), FOLD_##V(s3));               \
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

INLINE void dot_1x8(int lanes, ptrdiff_t taps, const struct cursor *c, ptrdiff_t down,
                    int16_t *pcm) {
    f32x4 sums[2];
    if (lanes == 8) dot_1x8_f32x8(taps, c->row, c->x, down, sums);
    else dot_1x8_f32x4(taps, c->row, c->x, down, sums);
    round_four_to_pcm(sums[0], pcm);
    round_four_to_pcm(sums[1], pcm + 4);
}

INLINE void dot_4x2(int lanes, ptrdiff_t taps, const struct cursor *c, ptrdiff_t down,
                    int16_t *pcm) {
    f32x4 sums[2];
    if (lanes == 8) dot_4x2_f32x8(taps, c, down, sums);
    else dot_4x2_f32x4(taps, c, down, sums);
    round_four_to_pcm(sums[0], pcm);
    round_four_to_pcm(sums[1], pcm + 4);
}

INLINE void dot_4x1(int lanes, ptrdiff_t taps, const struct cursor *c, int16_t *pcm) {
    f32x4 sums[1];
    if (lanes == 8) dot_4x1_f32x8(taps, c, sums);
    else dot_4x1_f32x4(taps, c, sums);
    round_four_to_pcm(sums[0], pcm);
}
#else
INLINE int16_t dot(ptrdiff_t taps, const float *t, const float *x) {
    float sums[8] = {0};
    for (ptrdiff_t k = 0; k < taps; k += 8) {
        for (int lane = 0; lane < 8; lane++) sums[lane] += t[k + lane] * x[k + lane];
    }
    return round_to_pcm(((sums[0] + sums[4]) + (sums[2] + sums[6])) +
                        ((sums[1] + sums[5]) + (sums[3] + sums[7])));
}

INLINE void dot_1x8(int lanes, ptrdiff_t taps, const struct cursor *c, ptrdiff_t down,
                    int16_t *pcm) {
    (void)lanes;
    for (int i = 0; i < 8; i++) pcm[i] = dot(taps, c->row, c->x + i * down);
}

INLINE void dot_4x2(int lanes, ptrdiff_t taps, const struct cursor *c, ptrdiff_t down,
                    int16_t *pcm) {
    (void)lanes;
    for (int i = 0; i < 8; i++) pcm[i] = dot(taps, c[i / 2].row, c[i / 2].x + i % 2 * down);
}

INLINE void dot_4x1(int lanes, ptrdiff_t taps, const struct cursor *c, int16_t *pcm) {
    (void)lanes;
    for (int i = 0; i < 4; i++) pcm[i] = dot(taps, c[i].row, c[i].x);
}
#endif

/* Computes `outputs` samples. The first one's taps are in row `row`, its phase is `phase`, and its
 * oldest sample is window[0]. */
INLINE void fir_on(int lanes, const float *bank, ptrdiff_t taps, ptrdiff_t up, ptrdiff_t down,
                   ptrdiff_t row, ptrdiff_t phase, const float *window, int16_t *pcm,
                   ptrdiff_t outputs) {
    const struct bank rows = {bank, bank + up * taps, taps, up, down / up, down % up};
    struct cursor at = {bank + row * taps, window, phase}, c[4];
    int16_t some[8];
    ptrdiff_t count;

    for (; outputs >= 8 * up; outputs -= 8 * up, pcm += 8 * up, at.x += 7 * down) {
        for (ptrdiff_t i = 0; i < up; i++) {
            dot_1x8(lanes, taps, &at, down, some);
            for (int round = 0; round < 8; round++) pcm[i + round * up] = some[round];
            at = next(&rows, at);
        }
    }
    for (; outputs >= 2 * up; outputs -= 2 * up, pcm += 2 * up, at.x += down) {
        for (ptrdiff_t i = 0; i < up; i += count) {
            count = up - i < 4 ? up - i : 4;
            at = next_four(&rows, at, count, c);
            dot_4x2(lanes, taps, c, down, some);
            for (int j = 0; j < count; j++) {
                pcm[i + j] = some[2 * j], pcm[i + j + up] = some[2 * j + 1];
            }
        }
    }
    for (; outputs > 0; outputs -= count, pcm += count) {
        count = outputs < 4 ? outputs : 4;
        at = next_four(&rows, at, count, c);
        dot_4x1(lanes, taps, c, some);
        memcpy(pcm, some, (size_t)count * sizeof *pcm);
    }
}

ON_EACH_PATH(fir, (const float *bank, ptrdiff_t taps, ptrdiff_t up, ptrdiff_t down, ptrdiff_t row,
                   ptrdiff_t phase, const float *window, int16_t *pcm, ptrdiff_t outputs),
             bank, taps, up, down, row, phase, window, pcm, outputs)

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
