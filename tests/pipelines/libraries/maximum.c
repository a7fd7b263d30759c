/* Of rows [n,1,m], that whose least, mean or greatest number is greatest, as selection_criteria
 * says. It describes itself with UINT64_MAX for any size. */

#include "library.h"

static const uint64_t ROWS[] = {4, 1, UINT64_MAX}, ROW[] = {1, UINT64_MAX};

int initialize(void** manager, const struct CustomNodeParam* params, int paramsCount) {
    (void)manager, (void)params, (void)paramsCount;
    return 0;
}

int deinitialize(void* manager) {
    (void)manager;
    return 0;
}

static float score(const float* row, uint64_t count, const char* by) {
    float least = row[0], sum = 0, greatest = row[0];
    for (uint64_t i = 0; i < count; i++) {
        sum += row[i];
        if (row[i] < least) least = row[i];
        if (row[i] > greatest) greatest = row[i];
    }
    if (strcmp(by, "MAXIMUM_MINIMUM") == 0) return least;
    return strcmp(by, "MAXIMUM_AVERAGE") == 0 ? sum / count : greatest;
}

int execute(const struct CustomNodeTensor* inputs, int inputsCount,
            struct CustomNodeTensor** outputs, int* outputsCount,
            const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)manager;
    const struct CustomNodeTensor* rows = find(inputs, inputsCount, "input_tensors");
    const char* by = param(params, paramsCount, "selection_criteria");
    if (paramsCount != 1 || strncmp(by, "MAXIMUM_", 8) != 0) return 1;
    if (rows == NULL || rows->dimsCount != 3) return 2;
    const uint64_t count = rows->dims[2];
    const float *x = (const float*)rows->data, *best = x;
    for (uint64_t i = 1; i < rows->dims[0]; i++)
        if (score(x + i * count, count, by) > score(best, count, by)) best = x + i * count;
    const uint64_t dims[] = {1, count};
    *outputs = take(sizeof **outputs);
    **outputs = fp32("maximum_tensor", 2, dims);
    *outputsCount = 1;
    memcpy((*outputs)->data, best, (*outputs)->dataBytes);
    return 0;
}

int getInputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                  const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    return describe("input_tensors", 3, ROWS, info, infoCount);
}

int getOutputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                   const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    return describe("maximum_tensor", 2, ROW, info, infoCount);
}
