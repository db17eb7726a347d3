/* How the vector loops of ulaw.h and fir.h are compiled and chosen.
 *
 * Each loop is written once, in the vector types that GCC and clang share, and compiled for each
 * vector path: "baseline" is what every machine of the architecture has (SSE2 on x86-64, NEON on
 * arm64); "avx2" adds AVX2 with FMA, and is chosen when the module loads on a processor that has
 * both. PIPECAT_TWILIO_VECTORS=baseline in the environment prevents that. The choice is a branch
 * around the whole loop instead of target_clones, so it also works on musl, on macOS and in
 * sanitizer builds. A third path for AVX-512 gained nothing on AMD Zen 4.
 *
 * Other compilers (MSVC, GCC before 9, which lacks __builtin_convertvector), and builds with
 * PIPECAT_TWILIO_PLAIN defined, get the "plain" path: the tables of ulaw.pyx, and the filter loops
 * with a float in place of a vector.
 */
#ifndef PIPECAT_TWILIO_VECTORS_H
#define PIPECAT_TWILIO_VECTORS_H

#include <stdlib.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "PCM here is little-endian, and so must the host be"
#endif

#if (defined(__clang__) || __GNUC__ >= 9) && !defined(PIPECAT_TWILIO_PLAIN)
#define HAVE_VECTORS 1
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x8 __attribute__((vector_size(32)));
typedef f32x4 f32x4_anywhere __attribute__((aligned(4), may_alias));
typedef f32x8 f32x8_anywhere __attribute__((aligned(4), may_alias));
typedef f32x4 V;
typedef f32x4_anywhere V_anywhere;
enum { LANES = 4 };
#else
#define HAVE_VECTORS 0
#define INLINE static inline
#define NOINLINE
typedef float V, V_anywhere;
enum { LANES = 1 };
#endif

#if HAVE_VECTORS && defined(__x86_64__)
#define HAVE_AVX2_PATH 1
#define AVX2 __attribute__((target("avx2,fma"), noinline))
#else
#define HAVE_AVX2_PATH 0
#endif

static int use_avx2;

/* Picks the path when the module loads; returns its name. */
INLINE const char *choose_vector_path(void) {
#if HAVE_AVX2_PATH
    const char *wanted = getenv("PIPECAT_TWILIO_VECTORS");
    __builtin_cpu_init();
    use_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               !(wanted && strcmp(wanted, "baseline") == 0);
#endif
    return use_avx2 ? "avx2" : HAVE_VECTORS ? "baseline" : "plain";
}

/* ON_EACH_PATH(name, (parameters), (arguments), { loop }) defines name(parameters), which runs the
 * loop compiled for the chosen path. In the loop, V is a vector of LANES floats, and V_anywhere is
 * one at any address of a float. The loops stay functions of their own: inlined into each other,
 * they would not have enough registers. */
#if HAVE_AVX2_PATH
#define ON_EACH_PATH(NAME, PARAMETERS, ARGUMENTS, ...)                                             \
    static NOINLINE void NAME##_baseline PARAMETERS __VA_ARGS__                                    \
    static AVX2 void NAME##_avx2 PARAMETERS {                                                      \
        typedef f32x8 V __attribute__((unused));                                                   \
        typedef f32x8_anywhere V_anywhere __attribute__((unused));                                 \
        enum { LANES = 8 };                                                                        \
        __VA_ARGS__                                                                                \
    }                                                                                              \
    static void NAME PARAMETERS {                                                                  \
        if (use_avx2) NAME##_avx2 ARGUMENTS;                                                       \
        else NAME##_baseline ARGUMENTS;                                                            \
    }
#else
#define ON_EACH_PATH(NAME, PARAMETERS, ARGUMENTS, ...)                                             \
    static NOINLINE void NAME PARAMETERS __VA_ARGS__
#endif

#endif
