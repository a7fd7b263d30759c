/* Throws where the parameter `from` says; else it copies [1,10] to [1,10]. */

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "kfs/custom_node.h"

namespace {

void maybe_throw(const char* where, const CustomNodeParam* params, int paramsCount) {
    for (int i = 0; i < paramsCount; i++) {
        if (std::strcmp(params[i].value, where) != 0) continue;
        if (std::strcmp(params[i].key, "from") == 0) throw std::out_of_range("no \xff such row");
        if (std::strcmp(params[i].key, "a number from") == 0) throw 7;
    }
}

template <typename T>
T* take(std::size_t count) {
    return static_cast<T*>(std::malloc(count * sizeof(T)));
}

std::uint64_t* take_dims() {
    auto* dims = take<std::uint64_t>(2);
    dims[0] = 1, dims[1] = 10;
    return dims;
}

int describe(CustomNodeTensorInfo** info, int* infoCount) {
    *info = take<CustomNodeTensorInfo>(1);
    **info = {"numbers", take_dims(), 2, FP32};
    *infoCount = 1;
    return 0;
}

}  // namespace

int initialize(void** manager, const CustomNodeParam* params, int paramsCount) {
    maybe_throw("initialize", params, paramsCount);
    *manager = nullptr; /* and yet it is a success */
    for (int i = 0; i < paramsCount; i++)
        if (std::strcmp(params[i].value, "release") == 0) *manager = take<char>(1);
    return 0;
}

int deinitialize(void* manager) {
    std::free(manager);
    if (manager != nullptr) throw std::runtime_error("not now");
    return 0;
}

int execute(const CustomNodeTensor* inputs, int, CustomNodeTensor** outputs, int* outputsCount,
            const CustomNodeParam* params, int paramsCount, void*) {
    maybe_throw("execute", params, paramsCount);
    *outputs = take<CustomNodeTensor>(1);
    **outputs = {"numbers", take<std::uint8_t>(40), 40, take_dims(), 2, FP32};
    std::memcpy((*outputs)->data, inputs[0].data, 40);
    *outputsCount = 1;
    return 0;
}

int getInputsInfo(CustomNodeTensorInfo** info, int* infoCount, const CustomNodeParam* params,
                  int paramsCount, void*) {
    maybe_throw("getInputsInfo", params, paramsCount);
    return describe(info, infoCount);
}

int getOutputsInfo(CustomNodeTensorInfo** info, int* infoCount, const CustomNodeParam* params,
                   int paramsCount, void*) {
    maybe_throw("getOutputsInfo", params, paramsCount);
    return describe(info, infoCount);
}

int release(void* ptr, void* manager) {
    std::free(ptr);
    if (manager != nullptr) throw std::runtime_error("not now");
    return 0;
}
