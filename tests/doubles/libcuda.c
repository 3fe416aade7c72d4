/* The part of CUDA's driver that pycuda does not hand on, for a machine with one GPU.
   EDGETRT_DOUBLE_CC is its compute capability. Graphs are the double's of pycuda, which says by
   edgetrt_double_graphs what to call for them. */
#include <stddef.h>
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

typedef struct {
    int (*begin)(void *stream, int mode);
    int (*end)(void *stream, void **graph);
    int (*launch)(void *graph, void *stream);
} Graphs;
static Graphs graphs;
enum { NOT_SUPPORTED = 801 };

void edgetrt_double_graphs(Graphs given) { graphs = given; }
int cuStreamBeginCapture_v2(void *stream, int mode) {
    return graphs.begin ? graphs.begin(stream, mode) : NOT_SUPPORTED;
}
int cuStreamEndCapture(void *stream, void **graph) { return graphs.end(stream, graph); }
int cuGraphInstantiate(void **executable, void *graph, void *node, char *log, size_t size) {
    *executable = graph;
    return 0;
}
int cuGraphDestroy(void *graph) { return 0; }
int cuGraphLaunch(void *executable, void *stream) { return graphs.launch(executable, stream); }
int cuGraphExecDestroy(void *executable) { return 0; }
