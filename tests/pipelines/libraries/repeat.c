/* The input as many times as its first number says: [n,1,10] out of [1,10]. */

#include "library.h"

static const uint64_t NUMBERS[] = {1, 10}, COPIES[] = {0, 1, 10};

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
    (void)params, (void)paramsCount, (void)manager;
    const struct CustomNodeTensor* numbers = find(inputs, inputsCount, "numbers");
    if (numbers == NULL) return 1;
    const uint64_t dims[] = {(uint64_t) * (const float*)numbers->data, 1, 10};
    *outputs = take(sizeof **outputs);
    **outputs = fp32("copies", 3, dims);
    *outputsCount = 1;
    for (uint64_t i = 0; i < dims[0]; i++) memcpy((*outputs)->data + 40 * i, numbers->data, 40);
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
    **info = info_of("copies", 3, COPIES);
    *infoCount = 1;
    return 0;
}
