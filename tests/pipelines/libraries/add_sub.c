/* numbers + add_value - sub_value, of any length; refuses to run without exactly these two. */

#include "library.h"

static const uint64_t NUMBERS[] = {1, 0};

int initialize(void** manager, const struct CustomNodeParam* params, int paramsCount) {
    (void)params, (void)paramsCount;
    return *manager != NULL;
}

int deinitialize(void* manager) {
    (void)manager;
    return 0;
}

int execute(const struct CustomNodeTensor* inputs, int inputsCount,
            struct CustomNodeTensor** outputs, int* outputsCount,
            const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)manager;
    const struct CustomNodeTensor* numbers = find(inputs, inputsCount, "input_numbers");
    const char* add = param(params, paramsCount, "add_value");
    const char* sub = param(params, paramsCount, "sub_value");
    if (paramsCount != 2) return 1;
    if (!*add || !*sub) return 2;
    if (numbers == NULL || numbers->precision != FP32) return 3;
    if (numbers->dimsCount != 2 || numbers->dims[0] != 1) return 4;
    if ((uintptr_t)numbers->data % sizeof(float) != 0) return 5;
    *outputs = take(sizeof **outputs);
    **outputs = fp32("output_numbers", 2, numbers->dims);
    *outputsCount = 1;
    const float* x = (const float*)numbers->data;
    float* y = (float*)(*outputs)->data;
    const float plus = strtof(add, NULL), minus = strtof(sub, NULL);
    for (uint64_t i = 0; i < numbers->dims[1]; i++) y[i] = x[i] + plus - minus;
    return 0;
}

int getInputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                  const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    return describe("input_numbers", 2, NUMBERS, info, infoCount);
}

int getOutputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                   const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    return describe("output_numbers", 2, NUMBERS, info, infoCount);
}
