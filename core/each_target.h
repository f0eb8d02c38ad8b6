// Loops that the compiler vectorises once per instruction set.
#pragma once

// One copy a machine, chosen at load time. The sanitizers' runtimes are not up yet when a choice is made.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RETORT_EACH_TARGET
#else
#define RETORT_EACH_TARGET __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
