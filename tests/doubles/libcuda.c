/* The part of CUDA's driver that engines.targets asks, for a machine with one GPU.
   EDGETRT_DOUBLE_CC is its compute capability. */
#include <stdio.h>
#include <stdlib.h>

enum { MAJOR = 75, MINOR = 76 };

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 10020; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, size, "a double's GPU");
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *text = getenv("EDGETRT_DOUBLE_CC");
    int major = 0, minor = 0;
    if (!text || sscanf(text, "%d.%d", &major, &minor) != 2) return 1;
    *value = attribute == MAJOR ? major : attribute == MINOR ? minor : 0;
    return 0;
}
