/* Gives [any,any,any,any] + 8 out of a small pool of its manager, as libraries with managers of
 * their own do: `release` has to come with the right manager and a pointer of that pool, once. With
 * the param `channels` it describes itself accordingly, and turns channels last into first; with
 * `sulks`, `release` returns 3 although it did as it was told. */

#include <pthread.h>

#define OWN_RELEASE
#include "library.h"

enum { N_BUFFERS = 4096 };

struct Pool {
    pthread_mutex_t lock;
    void* lent[N_BUFFERS];
    int sulks;
};

static atomic_long n_strangers;

/* How often `release` was given what was not lent, or no manager. */
long strangers(void) { return n_strangers; }

static void* lend(struct Pool* pool, size_t nbytes) {
    void* memory = take(nbytes);
    pthread_mutex_lock(&pool->lock);
    int at = 0;
    while (at < N_BUFFERS && pool->lent[at] != NULL) at++;
    if (at < N_BUFFERS) pool->lent[at] = memory;
    pthread_mutex_unlock(&pool->lock);
    return memory;
}

int release(void* ptr, void* manager) {
    struct Pool* pool = manager;
    int at = 0;
    if (pool != NULL) {
        pthread_mutex_lock(&pool->lock);
        while (at < N_BUFFERS && pool->lent[at] != ptr) at++;
        if (at < N_BUFFERS) pool->lent[at] = NULL;
        pthread_mutex_unlock(&pool->lock);
    }
    if (pool == NULL || ptr == NULL || at == N_BUFFERS) {
        n_strangers++;
        return 1;
    }
    n_blocks--;
    free(ptr);
    return pool->sulks ? 3 : 0;
}

int initialize(void** manager, const struct CustomNodeParam* params, int paramsCount) {
    struct Pool* pool = calloc(1, sizeof *pool);
    pool->sulks = *param(params, paramsCount, "sulks") != 0;
    pthread_mutex_init(&pool->lock, NULL);
    n_managers++;
    *manager = pool;
    return 0;
}

int deinitialize(void* manager) {
    pthread_mutex_destroy(&((struct Pool*)manager)->lock);
    n_managers--;
    free(manager);
    return 0;
}

int execute(const struct CustomNodeTensor* inputs, int inputsCount,
            struct CustomNodeTensor** outputs, int* outputsCount,
            const struct CustomNodeParam* params, int paramsCount, void* manager) {
    const struct CustomNodeTensor* image = find(inputs, inputsCount, "image");
    if (image == NULL || image->dimsCount != 4) return 1;
    const int turns = *param(params, paramsCount, "channels") != 0;
    const uint64_t *d = image->dims, dims[] = {d[0], turns ? d[3] : d[1], turns ? d[1] : d[2],
                                               turns ? d[2] : d[3]};
    *outputs = lend(manager, sizeof **outputs);
    **outputs = (struct CustomNodeTensor){"image", lend(manager, image->dataBytes),
                                          image->dataBytes, lend(manager, sizeof dims), 4, FP32};
    memcpy((*outputs)->dims, dims, sizeof dims);
    *outputsCount = 1;
    const float* x = (const float*)image->data;
    float* y = (float*)(*outputs)->data;
    const uint64_t n_pixels = d[1] * d[2], n_channels = d[3];
    for (uint64_t i = 0; i < image->dataBytes / sizeof *x; i++) {
        const uint64_t n = i / (n_pixels * n_channels), p = i / n_channels % n_pixels;
        const uint64_t turned = (n * n_channels + i % n_channels) * n_pixels + p;
        y[turns ? turned : i] = x[i] + 8;
    }
    return 0;
}

static int describe_image(int turned, struct CustomNodeTensorInfo** info, int* infoCount,
                          const struct CustomNodeParam* params, int paramsCount, void* manager) {
    const char* channels = param(params, paramsCount, "channels");
    uint64_t* dims = lend(manager, 4 * sizeof *dims);
    for (int i = 0; i < 4; i++) dims[i] = 0;
    if (*channels) dims[turned ? 1 : 3] = strtoul(channels, NULL, 10);
    *info = lend(manager, sizeof **info);
    **info = (struct CustomNodeTensorInfo){"image", dims, 4, FP32};
    *infoCount = 1;
    return 0;
}

int getInputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                  const struct CustomNodeParam* params, int paramsCount, void* manager) {
    return describe_image(0, info, infoCount, params, paramsCount, manager);
}

int getOutputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                   const struct CustomNodeParam* params, int paramsCount, void* manager) {
    return describe_image(1, info, infoCount, params, paramsCount, manager);
}
