/* A custom node that adds `value`, a parameter of the node, to every number. */

#include <stdlib.h>
#include <string.h>

#include "kfs/custom_node.h"

int initialize(void** manager, const struct CustomNodeParam* params, int paramsCount) {
    for (int i = 0; i < paramsCount; i++) {
        if (strcmp(params[i].key, "value") == 0) {
            float* value = malloc(sizeof *value);
            if (value == NULL) return 2;
            *value = strtof(params[i].value, NULL);
            *manager = value;
            return 0;
        }
    }
    return 1; /* no value: the pipeline is refused */
}

int deinitialize(void* manager) {
    free(manager);
    return 0;
}

int execute(const struct CustomNodeTensor* inputs, int inputsCount,
            struct CustomNodeTensor** outputs, int* outputsCount,
            const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount;
    if (inputsCount != 1 || inputs[0].precision != FP32) return 1;

    struct CustomNodeTensor* output = malloc(sizeof *output);
    float* numbers = malloc(inputs[0].dataBytes + 1); /* never NULL for want of bytes */
    uint64_t* dims = malloc(inputs[0].dimsCount * sizeof *dims);
    if (output == NULL || numbers == NULL || dims == NULL) {
        free(output), free(numbers), free(dims);
        return 2;
    }

    const float* given = (const float*)inputs[0].data;
    const float value = *(const float*)manager;
    for (uint64_t i = 0; i < inputs[0].dataBytes / sizeof(float); i++) numbers[i] = given[i] + value;
    memcpy(dims, inputs[0].dims, inputs[0].dimsCount * sizeof *dims);

    *output = (struct CustomNodeTensor){
        .name = "result",
        .data = (uint8_t*)numbers,
        .dataBytes = inputs[0].dataBytes,
        .dims = dims,
        .dimsCount = inputs[0].dimsCount,
        .precision = FP32,
    };
    *outputs = output;
    *outputsCount = 1;
    return 0;
}

static int describe(const char* name, struct CustomNodeTensorInfo** info, int* infoCount) {
    *info = malloc(sizeof **info);
    uint64_t* dims = malloc(2 * sizeof *dims);
    if (*info == NULL || dims == NULL) return 1;
    dims[0] = 1;
    dims[1] = 0; /* any */
    **info = (struct CustomNodeTensorInfo){name, dims, 2, FP32};
    *infoCount = 1;
    return 0;
}

int getInputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                  const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    return describe("numbers", info, infoCount);
}

int getOutputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                   const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    return describe("result", info, infoCount);
}

int release(void* ptr, void* manager) {
    (void)manager;
    free(ptr);
    return 0;
}
