/* The vector loops of resampler.pyx: a polyphase filter. Callers vouch for pointers and lengths.
 *
 * Output m lies at m * down on a time axis of up ticks per input sample. The remainder of that by
 * up is its phase; the quotient says where in the window its samples are. The bank has a row of
 * taps for each phase, in the order in which consecutive outputs use them, so that it is read from
 * end to end. Outputs that are `up` apart share a row, their samples `down` apart: eight or two
 * rounds of all rows are computed together.
 *
 * Every output sums its products in the same lanes in the same order in whatever company it is
 * computed, so chunking cannot change a bit: products with a zero around a row change no sum, and
 * a row that slides by four lanes only swaps the halves of eight, which are added at the end.
 */
#ifndef PIPECAT_TWILIO_FIR_H
#define PIPECAT_TWILIO_FIR_H

#include "fir_whole.h"
#include "floats.h"

enum { OVERREAD = 16 * MOST_TIMES }; /* samples read beyond the last, which do not count */

struct bank {
    const float *rows;
    const float *halves;   /* of the rows, for fir_whole, or NULL */
    ptrdiff_t taps, zeros; /* of a row, a multiple of 8; and around it, 4 * down or more, or none */
    ptrdiff_t up, down;
    ptrdiff_t whole, part; /* of down / up: how far on the next output's samples are */
};

/* Where an output gets its taps and its samples from. */
struct cursor {
    const float *row, *x;
    ptrdiff_t phase;
    ptrdiff_t second; /* round of its pair: 1, else 0; for fir_whole */
};

INLINE struct cursor next(const struct bank *bank, struct cursor at) {
    ptrdiff_t stride = bank->taps + bank->zeros;
    at.row += stride, at.x += bank->whole, at.phase += bank->part;
    if (at.row == bank->rows + bank->up * stride) at.row = bank->rows;
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

#if HAVE_VECTORS
/* SUM_8 puts the sums of the lanes of eight vectors into two, SUM_4 those of four into one. Eight
 * lanes are made four, the upper half added to the lower one, before they go the same way. They
 * are macros since GCC warns of wide vectors passed by a function, even if that is inlined. */
#define SUM_4_f32x4(sum, a, b, c, d)                                                               \
    do {                                                                                           \
        f32x4 ab = SHUFFLE_4(a, b, 0, 1, 4, 5) + SHUFFLE_4(a, b, 2, 3, 6, 7);                      \
        f32x4 cd = SHUFFLE_4(c, d, 0, 1, 4, 5) + SHUFFLE_4(c, d, 2, 3, 6, 7);                      \
        (sum) = SHUFFLE_4(ab, cd, 0, 2, 4, 6) + SHUFFLE_4(ab, cd, 1, 3, 5, 7);                     \
    } while (0)
#define SUM_8_f32x4(sums, a, b, c, d, e, f, g, h)                                                  \
    do {                                                                                           \
        SUM_4_f32x4((sums)[0], a, b, c, d);                                                        \
        SUM_4_f32x4((sums)[1], e, f, g, h);                                                        \
    } while (0)
#define ADD_HALVES(a, b)                                                                           \
    (SHUFFLE_8(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE_8(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#define ADD_PAIRS(a, b)                                                                            \
    (SHUFFLE_8(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + SHUFFLE_8(a, b, 2, 3, 10, 11, 6, 7, 14, 15))
#define SUM_8_f32x8(sums, a, b, c, d, e, f, g, h)                                                  \
    do {                                                                                           \
        f32x8 ae = ADD_HALVES(a, e), bf = ADD_HALVES(b, f);                                        \
        f32x8 cg = ADD_HALVES(c, g), dh = ADD_HALVES(d, h);                                        \
        f32x8 abef = ADD_PAIRS(ae, bf), cdgh = ADD_PAIRS(cg, dh);                                  \
        f32x8 all = SHUFFLE_8(abef, cdgh, 0, 2, 8, 10, 4, 6, 12, 14) +                             \
                    SHUFFLE_8(abef, cdgh, 1, 3, 9, 11, 5, 7, 13, 15);                              \
        memcpy(sums, &all, sizeof all);                                                            \
    } while (0)
#define SUM_4_f32x8(sum, a, b, c, d)                                                               \
    do {                                                                                           \
        f32x8 ac = ADD_HALVES(a, c), bd = ADD_HALVES(b, d), abcd = ADD_PAIRS(ac, bd);              \
        f32x4 pairs[2]; /* of a and b, and of c and d */                                           \
        memcpy(pairs, &abcd, sizeof abcd);                                                         \
        (sum) = SHUFFLE_4(pairs[0], pairs[1], 0, 2, 4, 6) +                                        \
                SHUFFLE_4(pairs[0], pairs[1], 1, 3, 5, 7);                                         \
    } while (0)

/* dot_RxN: R rows of taps, N outputs from each, their samples `down` apart. Eight sums, where there
 * are that many, hide how long an addition takes. In a dot_1x8 the row also slides by four outputs,
 * so that every load of samples serves two of them. */
#define MAC_2(V, sum0, sum1, x) WITH(V, x + k, sum0 += t0 * s, sum1 += t1 * s)
#define MAC(V, sum, t, x) sum += AT(V, t + k) * AT(V, x + k)
#define DEFINE_DOTS(V, LANES)                                                                      \
    INLINE void dot_1x8_##V(ptrdiff_t taps, ptrdiff_t zeros, const float *row, const float *x,     \
                            ptrdiff_t down, f32x4 *sums) {                                         \
        V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0}, s6 = {0}, s7 = {0};          \
        const float *x1 = x + down, *x2 = x1 + down, *x3 = x2 + down, *slid = row - 4 * down;      \
        for (ptrdiff_t k = 0; k < taps + zeros; k += LANES) {                                      \
            V t0 = AT(V, row + k), t1 = AT(V, slid + k);                                           \
            MAC_2(V, s0, s4, x);                                                                   \
            MAC_2(V, s1, s5, x1);                                                                  \
            MAC_2(V, s2, s6, x2);                                                                  \
            MAC_2(V, s3, s7, x3);                                                                  \
        }                                                                                          \
        SUM_8_##V(sums, s0, s1, s2, s3, s4, s5, s6, s7);                                           \
    }                                                                                              \
    INLINE void dot_4x2_##V(ptrdiff_t taps, const struct cursor *c, ptrdiff_t down, f32x4 *sums) { \
        V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0}, s6 = {0}, s7 = {0};          \
        const float *t0 = c[0].row, *t1 = c[1].row, *t2 = c[2].row, *t3 = c[3].row;                \
        const float *x0 = c[0].x, *x1 = c[1].x, *x2 = c[2].x, *x3 = c[3].x;                        \
        const float *y0 = x0 + down, *y1 = x1 + down, *y2 = x2 + down, *y3 = x3 + down;            \
        for (ptrdiff_t k = 0; k < taps; k += LANES) {                                              \
            MAC(V, s0, t0, x0), MAC(V, s1, t1, x1), MAC(V, s2, t2, x2), MAC(V, s3, t3, x3);        \
            MAC(V, s4, t0, y0), MAC(V, s5, t1, y1), MAC(V, s6, t2, y2), MAC(V, s7, t3, y3);        \
        }                                                                                          \
        SUM_8_##V(sums, s0, s1, s2, s3, s4, s5, s6, s7);                                           \
    }                                                                                              \
    INLINE void dot_4x1_##V(ptrdiff_t taps, const struct cursor *c, f32x4 *sums) {                 \
        V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                                                  \
        const float *t0 = c[0].row, *t1 = c[1].row, *t2 = c[2].row, *t3 = c[3].row;                \
        const float *x0 = c[0].x, *x1 = c[1].x, *x2 = c[2].x, *x3 = c[3].x;                        \
        for (ptrdiff_t k = 0; k < taps; k += LANES) {                                              \
            MAC(V, s0, t0, x0), MAC(V, s1, t1, x1), MAC(V, s2, t2, x2), MAC(V, s3, t3, x3);        \
        }                                                                                          \
        SUM_4_##V(sums[0], s0, s1, s2, s3);                                                        \
    }
DEFINE_DOTS(f32x4, 4)
DEFINE_DOTS(f32x8, 8)

INLINE void dot_1x8(int lanes, ptrdiff_t taps, ptrdiff_t zeros, const float *row, const float *x,
                    ptrdiff_t down, int16_t *pcm) {
    f32x4 sums[2];
    if (lanes == 8) dot_1x8_f32x8(taps, zeros, row, x, down, sums);
    else dot_1x8_f32x4(taps, zeros, row, x, down, sums);
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

INLINE void dot_1x8(int lanes, ptrdiff_t taps, ptrdiff_t zeros, const float *row, const float *x,
                    ptrdiff_t down, int16_t *pcm) {
    (void)lanes, (void)zeros;
    for (int i = 0; i < 8; i++) pcm[i] = dot(taps, row, x + i * down);
}

INLINE void dot_4x2(int lanes, ptrdiff_t taps, const struct cursor *c, ptrdiff_t down,
                    int16_t *pcm) {
    (void)lanes;
    for (int i = 0; i < 8; i++) pcm[i] = dot(taps, c[i % 4].row, c[i % 4].x + i / 4 * down);
}

INLINE void dot_4x1(int lanes, ptrdiff_t taps, const struct cursor *c, int16_t *pcm) {
    (void)lanes;
    for (int i = 0; i < 4; i++) pcm[i] = dot(taps, c[i].row, c[i].x);
}
#endif

/* Copies 1 to 4 samples; four, the usual number, at once. */
INLINE void put(const int16_t *some, int16_t *pcm, ptrdiff_t count) {
    if (count == 4) memcpy(pcm, some, 4 * sizeof *pcm);
    else for (ptrdiff_t i = 0; i < count; i++) pcm[i] = some[i];
}

/* What fir does, for any ratio. */
INLINE void fir_any_on(int lanes, const struct bank *bank, struct cursor *at, int16_t *pcm,
                       ptrdiff_t outputs) {
    const ptrdiff_t taps = bank->taps, zeros = bank->zeros, up = bank->up, down = bank->down;
    struct cursor here = *at, c[4];
    int16_t some[8];
    ptrdiff_t count;

    for (; zeros && outputs >= 8 * up; outputs -= 8 * up, pcm += 8 * up, here.x += 7 * down) {
        for (ptrdiff_t i = 0; i < up; i++) {
            dot_1x8(lanes, taps, zeros, here.row, here.x, down, some);
            for (int j = 0; j < 8; j++) pcm[i + j * up] = some[j];
            here = next(bank, here);
        }
    }
    for (; outputs >= 2 * up; outputs -= 2 * up, pcm += 2 * up, here.x += down) {
        for (ptrdiff_t i = 0; i < up; i += count) {
            count = up - i < 4 ? up - i : 4;
            here = next_four(bank, here, count, c);
            dot_4x2(lanes, taps, c, down, some);
            put(some, pcm + i, count);
            put(some + 4, pcm + i + up, count);
        }
    }
    for (; outputs > 0; outputs -= count, pcm += count) {
        count = outputs < 4 ? outputs : 4;
        here = next_four(bank, here, count, c);
        dot_4x1(lanes, taps, c, some);
        put(some, pcm, count);
    }
    *at = here;
}

ON_EACH_PATH(fir_any,
             (const struct bank *bank, struct cursor *at, int16_t *pcm, ptrdiff_t outputs),
             bank, at, pcm, outputs)

/* Computes `outputs` samples, the first one at `at`, which moves on to the next. */
INLINE void fir(const struct bank *bank, struct cursor *at, int16_t *pcm, ptrdiff_t outputs) {
#if HAVE_AVX2_PATH
    if (use_avx2 && bank->halves) { /* then there are whole rounds only */
        ptrdiff_t rounds = bank->up == 1 ? outputs : outputs / bank->up;
        fir_whole(bank->halves, bank->up, bank->down, at->x, at->second, pcm, rounds);
        at->x += rounds * bank->down;
        at->second = (at->second + rounds) % 2;
        return;
    }
#endif
    fir_any(bank, at, pcm, outputs);
}

#endif
