/* How the vector loops of ulaw.h and fir.h are compiled and chosen.
 *
 * Each loop is written once, in the vector types that GCC and clang share, and compiled for each
 * vector path: "baseline" is what every machine of the architecture has (SSE2 on x86-64, NEON on
 * arm64); "avx2" adds AVX2 with FMA where the processor, asked when the module loads, has them.
 * The choice is a branch around the whole loop instead of target_clones, so it also works on
 * musl, on macOS and in sanitizer builds, and PIPECAT_TWILIO_VECTORS=baseline in the environment
 * undoes it. Other compilers (MSVC, GCC before 9, which lacks __builtin_convertvector), and builds
 * with PIPECAT_TWILIO_PLAIN defined, get the "plain" path: the tables of ulaw.pyx and the loop that
 * fir.h has for them.
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
#else
#define HAVE_VECTORS 0
#define INLINE static inline
#endif

#if HAVE_VECTORS && defined(__x86_64__)
#define HAVE_AVX2_PATH 1
#define AVX2 __attribute__((target("avx2,fma")))
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

/* Defines NAME(...), which runs NAME_on, told the path's lanes of float, compiled for the path. */
#if HAVE_AVX2_PATH
#define ON_EACH_PATH(NAME, PARAMETERS, ...)                                                        \
    static AVX2 void NAME##_avx2 PARAMETERS { NAME##_on(8, __VA_ARGS__); }                         \
    static void NAME PARAMETERS {                                                                  \
        if (use_avx2) NAME##_avx2(__VA_ARGS__);                                                    \
        else NAME##_on(4, __VA_ARGS__);                                                            \
    }
#else
#define ON_EACH_PATH(NAME, PARAMETERS, ...)                                                        \
    static void NAME PARAMETERS { NAME##_on(4, __VA_ARGS__); }
#endif

#endif
