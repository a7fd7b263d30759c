/* A custom node in C++ that gathers rows and keeps the one with the greatest sum. */

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <numeric>

#include "kfs/custom_node.h"

namespace {

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};
template <typename T>
using Memory = std::unique_ptr<T[], Free>;

/* What `release` gives back; owned until it is handed over, so that nothing is lost on the way. */
template <typename T>
Memory<T> allocate(std::size_t count) {
    void* memory = std::malloc(count * sizeof(T) + 1); /* never NULL for want of bytes */
    if (memory == nullptr) throw std::bad_alloc();
    return Memory<T>(static_cast<T*>(memory));
}

/* Exceptions must not leave a function of the interface. */
template <typename Body>
int guarded(Body body) {
    try {
        return body();
    } catch (...) {
        return 2;
    }
}

const float* find_best(const float* rows, std::size_t n_rows, std::size_t n_columns) {
    const float* best = rows;
    float greatest = -std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < n_rows; i++) {
        const float* row = rows + i * n_columns;
        const float sum = std::accumulate(row, row + n_columns, 0.0f);
        if (sum > greatest) greatest = sum, best = row;
    }
    return best;
}

int describe(const char* name, std::initializer_list<std::uint64_t> shape,
             CustomNodeTensorInfo** info, int* infoCount) {
    auto dims = allocate<std::uint64_t>(shape.size());
    std::copy(shape.begin(), shape.end(), dims.get());
    auto infos = allocate<CustomNodeTensorInfo>(1);
    infos[0] = {name, dims.release(), shape.size(), FP32};
    *info = infos.release();
    *infoCount = 1;
    return 0;
}

}  // namespace

int initialize(void**, const CustomNodeParam*, int) { return 0; }

int deinitialize(void*) { return 0; }

int execute(const CustomNodeTensor* inputs, int inputsCount, CustomNodeTensor** outputs,
            int* outputsCount, const CustomNodeParam*, int, void*) {
    return guarded([=] {
        if (inputsCount != 1 || inputs[0].precision != FP32 || inputs[0].dimsCount != 3 ||
            inputs[0].dims[0] == 0)
            return 1;
        const std::uint64_t n_columns = inputs[0].dims[1] * inputs[0].dims[2];
        const std::uint64_t nbytes = n_columns * sizeof(float);
        auto data = allocate<std::uint8_t>(nbytes);
        auto dims = allocate<std::uint64_t>(2);
        auto output = allocate<CustomNodeTensor>(1);
        const auto* rows = reinterpret_cast<const float*>(inputs[0].data);
        std::memcpy(data.get(), find_best(rows, inputs[0].dims[0], n_columns), nbytes);
        dims[0] = inputs[0].dims[1], dims[1] = inputs[0].dims[2];
        output[0] = {"best", data.release(), nbytes, dims.release(), 2, FP32};
        *outputs = output.release();
        *outputsCount = 1;
        return 0;
    });
}

int getInputsInfo(CustomNodeTensorInfo** info, int* infoCount, const CustomNodeParam*, int, void*) {
    return guarded([=] { return describe("rows", {0, 1, 0}, info, infoCount); });
}

int getOutputsInfo(CustomNodeTensorInfo** info, int* infoCount, const CustomNodeParam*, int,
                   void*) {
    return guarded([=] { return describe("best", {1, 0}, info, infoCount); });
}

int release(void* ptr, void*) {
    std::free(ptr);
    return 0;
}
