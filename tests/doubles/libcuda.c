/* CUDA's driver for a machine with one GPU, whose compute capability EDGETRT_DOUBLE_CC says.
   That much is here; the rest is played in Python, by cuda_double/_driver.py, as soon as the double
   of TensorRT or of pycuda is imported. Until then it gives NOT_INITIALIZED. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAJOR = 75, MINOR = 76, INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_DEVICE = 101 };
typedef unsigned long long address;  /* CUdeviceptr */

int initialized;
int (*play_cuInit)(unsigned flags);
int cuInit(unsigned flags) {
    initialized = 1;
    return play_cuInit ? play_cuInit(flags) : 0;
}
int cuDriverGetVersion(int *version) { *version = 10020; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int number) {
    *device = number;
    return number ? INVALID_DEVICE : 0;
}
int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, size, "a double's GPU");
    return 0;
}
int (*play_cuDeviceGetAttribute)(int *value, int attribute, int device);
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *text = getenv("EDGETRT_DOUBLE_CC");
    int major = 0, minor = 0;
    if (!text || sscanf(text, "%d.%d", &major, &minor) != 2) return INVALID_VALUE;
    if (attribute == MAJOR || attribute == MINOR) {
        *value = attribute == MAJOR ? major : minor;
        return 0;
    }
    return play_cuDeviceGetAttribute ? play_cuDeviceGetAttribute(value, attribute, device)
                                     : NOT_INITIALIZED;
}

#define PLAYED(name, parameters, arguments) \
    int (*play_##name) parameters; \
    int name parameters { return play_##name ? play_##name arguments : NOT_INITIALIZED; }

PLAYED(cuGetErrorString, (int result, const char **text), (result, text))

PLAYED(cuDevicePrimaryCtxRetain, (void **context, int device), (context, device))
PLAYED(cuCtxPushCurrent_v2, (void *context), (context))
PLAYED(cuCtxPopCurrent_v2, (void **context), (context))
PLAYED(cuCtxGetCurrent, (void **context), (context))

PLAYED(cuMemAlloc_v2, (address *there, size_t size), (there, size))
PLAYED(cuMemFree_v2, (address there), (there))
PLAYED(cuMemHostAlloc, (void **start, size_t size, unsigned flags), (start, size, flags))
PLAYED(cuMemHostGetDevicePointer_v2, (address *there, void *start, unsigned flags),
       (there, start, flags))
PLAYED(cuMemFreeHost, (void *start), (start))
PLAYED(cuMemcpyHtoDAsync_v2, (address to, const void *from, size_t size, void *stream),
       (to, from, size, stream))
PLAYED(cuMemcpyDtoHAsync_v2, (void *to, address from, size_t size, void *stream),
       (to, from, size, stream))

PLAYED(cuStreamCreate, (void **stream, unsigned flags), (stream, flags))
PLAYED(cuStreamSynchronize, (void *stream), (stream))
PLAYED(cuStreamDestroy_v2, (void *stream), (stream))
PLAYED(cuEventCreate, (void **event, unsigned flags), (event, flags))
PLAYED(cuEventRecord, (void *event, void *stream), (event, stream))
PLAYED(cuEventElapsedTime, (float *milliseconds, void *start, void *end),
       (milliseconds, start, end))
PLAYED(cuEventDestroy_v2, (void *event), (event))

PLAYED(cuStreamBeginCapture_v2, (void *stream, int mode), (stream, mode))
PLAYED(cuStreamEndCapture, (void *stream, void **graph), (stream, graph))
PLAYED(cuGraphLaunch, (void *executable, void *stream), (executable, stream))
int cuGraphInstantiate(void **executable, void *graph, void *node, char *log, size_t size) {
    *executable = graph;
    return 0;
}
int cuGraphDestroy(void *graph) { return 0; }
int cuGraphExecDestroy(void *executable) { return 0; }
