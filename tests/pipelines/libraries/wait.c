/* Gives back its input, but only once there is a file at the path `until`. */

#define _POSIX_C_SOURCE 200809L
#include <time.h>
#include <unistd.h>

#include "library.h"

static const uint64_t NUMBERS[] = {1, 10};

int initialize(void** manager, const struct CustomNodeParam* params, int paramsCount) {
    (void)manager, (void)params, (void)paramsCount;
    return 0;
}

int deinitialize(void* manager) {
    (void)manager;
    return 0;
}

int execute(const struct CustomNodeTensor* inputs, int inputsCount,
            struct CustomNodeTensor** outputs, int* outputsCount,
            const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)manager;
    const struct CustomNodeTensor* numbers = find(inputs, inputsCount, "numbers");
    if (numbers == NULL) return 1;
    const struct timespec pause = {0, 1000000};
    while (access(param(params, paramsCount, "until"), F_OK) != 0) nanosleep(&pause, NULL);
    *outputs = take(sizeof **outputs);
    **outputs = fp32("same", 2, NUMBERS);
    *outputsCount = 1;
    memcpy((*outputs)->data, numbers->data, 40);
    return 0;
}

int getInputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                  const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    *info = take(sizeof **info);
    **info = info_of("numbers", 2, NUMBERS);
    *infoCount = 1;
    return 0;
}

int getOutputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                   const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    *info = take(sizeof **info);
    **info = info_of("same", 2, NUMBERS);
    *infoCount = 1;
    return 0;
}
