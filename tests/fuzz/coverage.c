/* Tells libFuzzer where the code has been: what clang would add by itself, for gcc.
 *
 * gcc calls __sanitizer_cov_trace_pc at every edge of the control flow; libFuzzer reads counters.
 * Each module has its own, found by where in the module the call comes from, so that they are the
 * same in every run.
 */
#include <stddef.h>
#include <stdint.h>

#define UNSEEN __attribute__((no_sanitize_coverage, no_sanitize_address))

enum { N_COUNTERS = 1 << 14 };

struct Place {
    uintptr_t pc;
    uintptr_t flags;
};

void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop);
void __sanitizer_cov_pcs_init(const uintptr_t *start, const uintptr_t *stop);

/* Where the linker puts the module. */
extern const char __ehdr_start __attribute__((visibility("hidden")));

static uint8_t counters[N_COUNTERS];
static struct Place places[N_COUNTERS]; /* libFuzzer wants one for each counter */

UNSEEN void __sanitizer_cov_trace_pc(void) {
    uint32_t offset = (uint32_t)((uintptr_t)__builtin_return_address(0) - (uintptr_t)&__ehdr_start);
    uint32_t index = (offset * 2654435761u) >> 18;
    if (counters[index] != UINT8_MAX)
        counters[index]++;
    if (places[index].pc == 0)
        places[index].pc = (uintptr_t)&__ehdr_start + offset;
}

__attribute__((constructor)) UNSEEN static void register_counters(void) {
    __sanitizer_cov_8bit_counters_init(counters, counters + N_COUNTERS);
    __sanitizer_cov_pcs_init((const uintptr_t *)places, (const uintptr_t *)(places + N_COUNTERS));
}
