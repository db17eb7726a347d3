/* The vector paths of ulaw.h and fir.h, and the choice between them.
 *
 * A loop is an INLINE function in the vector types that GCC and clang share, compiled into two
 * functions. "baseline" has what every machine of the architecture has (SSE2 on x86-64, NEON on
 * arm64). "avx2", marked AVX2, adds AVX2 with FMA. This also works on musl, on macOS and in
 * sanitizer builds, where target_clones does not. AVX-512 gained nothing on AMD Zen 4.
 *
 * Other compilers (MSVC, GCC before 9, which lacks __builtin_convertvector), and builds with
 * PIPECAT_TWILIO_PLAIN defined, get the "plain" path: loops without vectors.
 */
#pragma once

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

/* clang-cl links without the library that __builtin_cpu_supports needs. */
#if HAVE_VECTORS && defined(__x86_64__) && !defined(_MSC_VER)
#define AVX2 __attribute__((target("avx2,fma"), noinline))
static int use_avx2;
#else
#define AVX2
enum { use_avx2 = 0 };
#endif

/* Chooses the path when the module loads, and returns its name. In the environment,
 * PIPECAT_TWILIO_VECTORS=baseline turns AVX2 off. */
INLINE const char *choose_vector_path(void) {
#if HAVE_VECTORS && defined(__x86_64__) && !defined(_MSC_VER)
    const char *wanted = getenv("PIPECAT_TWILIO_VECTORS");
    __builtin_cpu_init();
    use_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               !(wanted && strcmp(wanted, "baseline") == 0);
#endif
    return use_avx2 ? "avx2" : HAVE_VECTORS ? "baseline" : "plain";
}
