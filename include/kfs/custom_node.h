/* The interface of custom nodes: what a shared object exports to be a node of a pipeline.
 *
 * It is binary compatible with the custom nodes of OpenVINO Model Server: libraries built for
 * either run in both.
 *
 * The library allocates whatever it returns, and the server hands each piece back to `release`:
 *   - the dims of every tensor and info, as soon as they are read;
 *   - the array of tensors or infos, once all of it is read;
 *   - the data of a tensor when its last user is gone, maybe from another thread and after later
 *     calls of `execute`.
 * Names are never released: use literals. After `execute` has returned anything but 0, nothing is
 * released. Functions return 0 on success, and may be called from several threads at a time. What
 * they throw in C++ counts as a failure.
 */
#ifndef KFS_CUSTOM_NODE_H
#define KFS_CUSTOM_NODE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Tensors of a type that is not here arrive as UNSPECIFIED, and cannot be returned. */
typedef enum {
    UNSPECIFIED = 0,
    FP32 = 1,
    FP16 = 2,
    U8 = 3,
    I8 = 4,
    I16 = 5,
    U16 = 6,
    I32 = 7,
    FP64 = 8,
    I64 = 9
} CustomNodeTensorPrecision;

struct CustomNodeTensor {
    const char* name;
    uint8_t* data; /* never NULL, not even for no bytes */
    uint64_t dataBytes;
    uint64_t* dims;
    uint64_t dimsCount;
    CustomNodeTensorPrecision precision;
};

/* In dims, 0 stands for any size. */
struct CustomNodeTensorInfo {
    const char* name;
    uint64_t* dims;
    uint64_t dimsCount;
    CustomNodeTensorPrecision precision;
};

/* From `params` of the node's configuration; their order means nothing. */
struct CustomNodeParam {
    const char* key;
    const char* value;
};

/* Once for each node of each pipeline that is loaded. What is stored in *manager is given to all
 * other functions; it is NULL before. */
int initialize(void** manager, const struct CustomNodeParam* params, int paramsCount);

/* Once, when nothing of the node is in use any more. */
int deinitialize(void* manager);

/* Inputs come in any order: look for names. Their data is aligned as its type asks for, belongs to
 * the server, and is to be read only, and only until this returns. */
int execute(const struct CustomNodeTensor* inputs, int inputsCount,
            struct CustomNodeTensor** outputs, int* outputsCount,
            const struct CustomNodeParam* params, int paramsCount, void* manager);

/* What the node takes and gives; asked while a pipeline is loaded, and always answered alike. */
int getInputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                  const struct CustomNodeParam* params, int paramsCount, void* manager);
int getOutputsInfo(struct CustomNodeTensorInfo** info, int* infoCount,
                   const struct CustomNodeParam* params, int paramsCount, void* manager);

/* Give back memory that the library allocated. */
int release(void* ptr, void* manager);

#ifdef __cplusplus
}
#endif

#endif
