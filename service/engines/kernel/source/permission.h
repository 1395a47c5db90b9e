// Whether this process may use the tile unit: the processor has it, the system keeps its registers, and it was asked
// for them, which Linux demands of every process because they take eight kilobytes a thread.
#ifndef CTRLIFT_PERMISSION_H
#define CTRLIFT_PERMISSION_H

#if defined(CTRLIFT_WITH_amx)

#include <cpuid.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool tiles_permitted() {
    if (!__builtin_cpu_supports("avx512f")) return false;
    unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    constexpr unsigned int kTilesOfBfloat16 = 1u << 22, kTiles = 1u << 24;
    if ((edx & kTilesOfBfloat16) == 0 || (edx & kTiles) == 0) return false;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#endif
#endif
