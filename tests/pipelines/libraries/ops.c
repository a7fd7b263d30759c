/* Four operations on the same numbers, one per row: x + f0, x - f1, x * f2, x / f3; and the factors
 * four times. */

#include "library.h"

static const uint64_t NUMBERS[] = {1, 10}, FACTORS[] = {1, 4}, ROWS[] = {4, 1, 10},
                      FACTOR_ROWS[] = {4, 1, 4};

int initialize(void** manager, const struct CustomNodeParam* params, int paramsCount) {
    (void)params, (void)paramsCount;
    if (*manager != NULL) return 1;
    *manager = malloc(1);
    n_managers++;
    return 0;
}

int deinitialize(void* manager) {
    free(manager);
    n_managers--;
    return 0;
}

int execute(const struct CustomNodeTensor* inputs, int inputsCount,
            struct CustomNodeTensor** outputs, int* outputsCount,
            const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    const struct CustomNodeTensor* numbers = find(inputs, inputsCount, "input_numbers");
    const struct CustomNodeTensor* factors = find(inputs, inputsCount, "op_factors");
    if (numbers == NULL || factors == NULL || numbers->dataBytes != 40) return 1;
    const float *x = (const float*)numbers->data, *f = (const float*)factors->data;
    *outputs = take(2 * sizeof **outputs);
    (*outputs)[0] = fp32("different_ops_results", 3, ROWS);
    (*outputs)[1] = fp32("different_ops_factors", 3, FACTOR_ROWS);
    *outputsCount = 2;
    float* rows = (float*)(*outputs)[0].data;
    for (int i = 0; i < 10; i++) {
        rows[i] = x[i] + f[0];
        rows[10 + i] = x[i] - f[1];
        rows[20 + i] = x[i] * f[2];
        rows[30 + i] = x[i] / f[3];
    }
    for (int i = 0; i < 4; i++) memcpy((float*)(*outputs)[1].data + 4 * i, f, 16);
    return 0;
}

int getInputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                  const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    *info = take(2 * sizeof **info);
    (*info)[0] = info_of("input_numbers", 2, NUMBERS);
    (*info)[1] = info_of("op_factors", 2, FACTORS);
    *infoCount = 2;
    return 0;
}

int getOutputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                   const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)params, (void)paramsCount, (void)manager;
    *info = take(2 * sizeof **info);
    (*info)[0] = info_of("different_ops_results", 3, ROWS);
    (*info)[1] = info_of("different_ops_factors", 3, FACTOR_ROWS);
    *infoCount = 2;
    return 0;
}
