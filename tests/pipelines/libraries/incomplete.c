/* Lacks all functions but one. */

int initialize(void** manager, const void* params, int count) {
    (void)manager, (void)params, (void)count;
    return 0;
}
