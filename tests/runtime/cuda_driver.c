/* A stand-in for the CUDA driver, for machines without a GPU: one "GPU" of compute capability 8.6 whose memory is the
   computer's own. It checks what a real driver would: that a context is current in the thread, that handles are its
   own, that nothing is freed twice; and it counts what was not given back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INVALID_VALUE 1
#define INVALID_CONTEXT 201
#define INVALID_HANDLE 400

static __thread void *current = NULL;
static int context, stream, retained = 0, streams = 0, buffers = 0;

static int check(void) { return current == &context ? 0 : INVALID_CONTEXT; }

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : 0; }
int cuDeviceGetCount(int *count) { *count = getenv("EDGEKIT_NO_GPU") ? 0 : 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal ? INVALID_VALUE : 0; }
int cuDeviceGetName(char *name, int size, int device) {
    if (device != 7) return INVALID_VALUE;
    strncpy(name, "Stand-in RTX", size);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (device != 7 || (attribute != 75 && attribute != 76)) return INVALID_VALUE;
    *value = attribute == 75 ? 8 : 6;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **found, int device) {
    *found = &context;
    retained++;
    return device == 7 ? 0 : INVALID_VALUE;
}
int cuDevicePrimaryCtxRelease_v2(int device) { retained--; return device == 7 ? 0 : INVALID_VALUE; }
int cuCtxSetCurrent(void *wanted) {
    if (wanted != &context) return INVALID_CONTEXT;
    current = wanted;
    return 0;
}
int cuStreamCreate(void **found, unsigned flags) {
    *found = &stream;
    streams++;
    return flags ? INVALID_VALUE : check();
}
int cuStreamSynchronize(void *which) { return which == &stream ? check() : INVALID_HANDLE; }
int cuStreamDestroy_v2(void *which) { streams--; return which == &stream ? check() : INVALID_HANDLE; }
int cuMemAlloc_v2(uint64_t *address, size_t size) {
    if (size == 0) return INVALID_VALUE;
    *address = (uint64_t)(uintptr_t)malloc(size);
    buffers++;
    return check();
}
int cuMemFree_v2(uint64_t address) { free((void *)(uintptr_t)address); buffers--; return check(); }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *which) {
    if (which != &stream || check()) return INVALID_HANDLE;
    memcpy((void *)(uintptr_t)to, from, size);
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *which) {
    if (which != &stream || check()) return INVALID_HANDLE;
    memcpy(to, (const void *)(uintptr_t)from, size);
    return 0;
}
int cuGetErrorString(int status, const char **text) {
    *text = status == INVALID_CONTEXT ? "invalid device context" : "something else";
    return 0;
}

/* For the tests alone. */
int standin_held(void) { return retained + streams + buffers; }
