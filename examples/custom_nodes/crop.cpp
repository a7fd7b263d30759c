/* A custom node in C++ with OpenCV: cuts boxes out of an image and makes them all of one size.
 *
 * image [1,H,W,3] and boxes [1,N,4], each box left, top, right, bottom as parts of 1; params width
 * and height. It gives crops [N,1,height,width,3], made to be demultiplexed, and the boxes in the
 * same order as where [N,1,4]. */

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <string>

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

/* Exceptions, those of OpenCV among them, must not leave a function of the interface. */
template <typename Body>
int guarded(Body body) {
    try {
        return body();
    } catch (...) {
        return 2;
    }
}

int read_size(const char* key, const CustomNodeParam* params, int paramsCount) {
    for (int i = 0; i < paramsCount; i++)
        if (std::strcmp(params[i].key, key) == 0) return std::stoi(params[i].value);
    return 0;
}

const CustomNodeTensor* find(const char* name, const CustomNodeTensor* inputs, int inputsCount) {
    const auto* found = std::find_if(inputs, inputs + inputsCount, [=](const auto& input) {
        return std::strcmp(input.name, name) == 0;
    });
    return found == inputs + inputsCount || found->precision != FP32 ? nullptr : found;
}

using Shape = std::initializer_list<std::uint64_t>;

/* An output on its way to the server. */
struct Output {
    const char* name;
    std::uint64_t rank;
    std::uint64_t nbytes = sizeof(float);
    Memory<std::uint64_t> dims;
    Memory<std::uint8_t> data;

    Output(const char* name, Shape shape)
        : name(name), rank(shape.size()), dims(allocate<std::uint64_t>(shape.size())) {
        std::copy(shape.begin(), shape.end(), dims.get());
        for (std::uint64_t size : shape) nbytes *= size;
        data = allocate<std::uint8_t>(nbytes);
    }
    CustomNodeTensor hand_over() {
        return {name, data.release(), nbytes, dims.release(), rank, FP32};
    }
};

int describe(const char* first, Shape first_shape, const char* second, Shape second_shape,
             CustomNodeTensorInfo** info, int* infoCount) {
    auto infos = allocate<CustomNodeTensorInfo>(2);
    auto first_dims = allocate<std::uint64_t>(first_shape.size());
    auto second_dims = allocate<std::uint64_t>(second_shape.size());
    std::copy(first_shape.begin(), first_shape.end(), first_dims.get());
    std::copy(second_shape.begin(), second_shape.end(), second_dims.get());
    infos[0] = {first, first_dims.release(), first_shape.size(), FP32};
    infos[1] = {second, second_dims.release(), second_shape.size(), FP32};
    *info = infos.release();
    *infoCount = 2;
    return 0;
}

/* The pixels of a box; at least one, and inside the image. */
cv::Rect to_pixels(const float* box, const cv::Size& image) {
    const auto place = [](float part, int size) {
        return std::clamp(static_cast<int>(std::lround(part * size)), 0, size);
    };
    const int left = std::min(place(box[0], image.width), image.width - 1);
    const int top = std::min(place(box[1], image.height), image.height - 1);
    const int right = std::max(place(box[2], image.width), left + 1);
    const int bottom = std::max(place(box[3], image.height), top + 1);
    return {left, top, right - left, bottom - top};
}

}  // namespace

int initialize(void** manager, const CustomNodeParam* params, int paramsCount) {
    return guarded([=] {
        const cv::Size size(read_size("width", params, paramsCount),
                            read_size("height", params, paramsCount));
        if (size.width <= 0 || size.height <= 0) return 1; /* the pipeline is refused */
        *manager = new cv::Size(size);
        return 0;
    });
}

int deinitialize(void* manager) {
    delete static_cast<cv::Size*>(manager);
    return 0;
}

int execute(const CustomNodeTensor* inputs, int inputsCount, CustomNodeTensor** outputs,
            int* outputsCount, const CustomNodeParam*, int, void* manager) {
    return guarded([=] {
        const CustomNodeTensor* image = find("image", inputs, inputsCount);
        const CustomNodeTensor* boxes = find("boxes", inputs, inputsCount);
        if (image == nullptr || boxes == nullptr) return 1;
        if (image->dimsCount != 4 || image->dims[0] != 1 || image->dims[3] != 3) return 1;
        if (image->dims[1] == 0 || image->dims[2] == 0) return 1; /* nothing to cut from */
        if (boxes->dimsCount != 3 || boxes->dims[0] != 1 || boxes->dims[2] != 4) return 1;

        const cv::Size size = *static_cast<cv::Size*>(manager);
        const cv::Mat pixels(image->dims[1], image->dims[2], CV_32FC3, image->data);
        const auto* box = reinterpret_cast<const float*>(boxes->data);
        const std::uint64_t count = boxes->dims[1];
        auto made = allocate<CustomNodeTensor>(2);
        Output crops("crops", {count, 1, std::uint64_t(size.height), std::uint64_t(size.width), 3});
        Output where("where", {count, 1, 4});
        std::memcpy(where.data.get(), boxes->data, boxes->dataBytes);
        for (std::uint64_t i = 0; i < count; i++) {
            std::uint8_t* place = crops.data.get() + i * size.area() * 3 * sizeof(float);
            cv::Mat crop(size, CV_32FC3, place);
            cv::resize(pixels(to_pixels(box + 4 * i, pixels.size())), crop, size);
        }
        made[0] = crops.hand_over();
        made[1] = where.hand_over();
        *outputs = made.release();
        *outputsCount = 2;
        return 0;
    });
}

int getInputsInfo(CustomNodeTensorInfo** info, int* infoCount, const CustomNodeParam*, int, void*) {
    return guarded([=] {
        return describe("image", {1, 0, 0, 3}, "boxes", {1, 0, 4}, info, infoCount);
    });
}

int getOutputsInfo(CustomNodeTensorInfo** info, int* infoCount, const CustomNodeParam*, int,
                   void* manager) {
    return guarded([=] {
        const cv::Size size = *static_cast<cv::Size*>(manager);
        const Shape crops = {0, 1, std::uint64_t(size.height), std::uint64_t(size.width), 3};
        return describe("crops", crops, "where", {0, 1, 4}, info, infoCount);
    });
}

int release(void* ptr, void*) {
    std::free(ptr);
    return 0;
}
