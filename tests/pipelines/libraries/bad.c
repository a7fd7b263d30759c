/* Misbehaves as the parameter `mode` says; else it copies [1,10] to [1,10]. */

#include <limits.h>

#include "library.h"

static const uint64_t NUMBERS[] = {1, 10};

#define IS(text) (strcmp(param(params, paramsCount, "mode"), text) == 0)

int initialize(void** manager, const struct CustomNodeParam* params, int paramsCount) {
    (void)manager;
    return IS("initialize") ? 7 : 0;
}

int deinitialize(void* manager) {
    (void)manager;
    return 5;
}

static void spoil(struct CustomNodeTensor* output, const struct CustomNodeParam* params,
                  int paramsCount) {
    if (IS("precision")) output->precision = 77;
    if (IS("unspecified")) output->precision = UNSPECIFIED;
    if (IS("size")) output->dataBytes = 39;
    if (IS("unnamed")) output->name = NULL;
    if (IS("no utf-8")) output->name = "\xff\xfe";
    if (IS("renamed")) output->name = "other";
    if (IS("rank")) output->dimsCount = UINT64_MAX;
    if (IS("huge")) output->dims[0] = UINT64_MAX;
    if (IS("vast")) output->dims[0] = 0, output->dims[1] = UINT64_MAX / 2, output->dataBytes = 0;
    if (IS("flat")) output->dimsCount = 1, output->dims[0] = 10;
    if (IS("halves")) output->precision = FP16, output->dims[1] = 20;
    if (IS("shape")) output->dims[0] = 2, output->dims[1] = 5;
    if (IS("no data")) release(output->data, NULL), output->data = NULL;
    if (IS("no dims")) release(output->dims, NULL), output->dims = NULL;
}

int execute(const struct CustomNodeTensor* inputs, int inputsCount,
            struct CustomNodeTensor** outputs, int* outputsCount,
            const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)inputsCount, (void)manager;
    if (IS("execute")) return 9;
    if (IS("null")) return 0;
    *outputs = take(2 * sizeof **outputs);
    *outputsCount = IS("count") ? 0 : IS("negative") ? -1 : IS("many") ? INT_MAX : 2;
    if (*outputsCount != 2) return 0;
    (*outputs)[0] = fp32(IS("twice") ? "result" : "good", 2, NUMBERS);
    memcpy((*outputs)[0].data, inputs[0].data, 40);
    (*outputs)[1] = fp32("result", 2, NUMBERS);
    memcpy((*outputs)[1].data, inputs[0].data, 40);
    if (IS("twice")) memset((*outputs)[1].data, 0, 40);
    if (IS("given")) release((*outputs)[1].data, NULL), (*outputs)[1].data = inputs[0].data;
    if (IS("in given")) release((*outputs)[1].data, NULL), (*outputs)[1].data = inputs[0].data + 36;
    spoil(&(*outputs)[1], params, paramsCount);
    return 0;
}

int getInputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                  const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)manager;
    if (IS("inputs")) return 3;
    if (IS("inputs null")) return 0;
    *info = take(sizeof **info);
    *infoCount = IS("inputs count") ? 0 : IS("inputs many") ? INT_MAX : 1;
    if (*infoCount == 1) **info = info_of("numbers", 2, NUMBERS);
    return 0;
}

int getOutputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                   const struct CustomNodeParam* params, int paramsCount, void* manager) {
    (void)manager;
    if (IS("outputs")) return 4;
    if (IS("outputs null")) return 0;
    *info = take(2 * sizeof **info);
    *infoCount = IS("outputs count") ? -2 : 2;
    if (*infoCount < 0) return 0;
    (*info)[0] = info_of("result", 2, NUMBERS);
    (*info)[1] = info_of("spare", 2, NUMBERS);
    (*info)[1].name = NULL;
    if (IS("info rank")) (*info)[0].dimsCount = 1u << 30;
    if (IS("info vast")) (*info)[0].dims[0] = UINT64_MAX / 2 + 1;
    if (IS("info dims")) release((*info)[0].dims, NULL), (*info)[0].dims = NULL;
    return 0;
}
