/* What the libraries of the tests share: memory that is counted, and short descriptions. */

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kfs/custom_node.h"

static atomic_long n_blocks, n_managers;

long blocks(void) { return n_blocks; }
long managers(void) { return n_managers; }

static inline void* take(size_t nbytes) {
    n_blocks++;
    return malloc(nbytes + 1);
}

#ifndef OWN_RELEASE
int release(void* ptr, void* manager) {
    (void)manager;
    n_blocks--;
    free(ptr);
    return 0;
}
#endif

static inline const char* param(const struct CustomNodeParam* params, int count, const char* key) {
    for (int i = 0; i < count; i++)
        if (strcmp(params[i].key, key) == 0) return params[i].value;
    return "";
}

static inline const struct CustomNodeTensor* find(const struct CustomNodeTensor* inputs, int count,
                                                  const char* name) {
    for (int i = 0; i < count; i++)
        if (strcmp(inputs[i].name, name) == 0) return &inputs[i];
    return NULL;
}

static inline uint64_t* take_dims(int count, const uint64_t* dims) {
    return memcpy(take(count * sizeof *dims), dims, count * sizeof *dims);
}

static inline struct CustomNodeTensor fp32(const char* name, int count, const uint64_t* dims) {
    uint64_t nbytes = sizeof(float);
    for (int i = 0; i < count; i++) nbytes *= dims[i];
    return (struct CustomNodeTensor){name, take(nbytes), nbytes, take_dims(count, dims), count, FP32};
}

static inline struct CustomNodeTensorInfo info_of(const char* name, int count, const uint64_t* dims) {
    return (struct CustomNodeTensorInfo){name, take_dims(count, dims), count, FP32};
}

static inline int describe(const char* name, int count, const uint64_t* dims,
                           struct CustomNodeTensorInfo** info, int* infoCount) {
    *info = take(sizeof **info);
    **info = info_of(name, count, dims);
    *infoCount = 1;
    return 0;
}
