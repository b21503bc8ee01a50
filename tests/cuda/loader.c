/* Stands in for libcuda.so.1 where there is no driver, so that cuDNN finishes its plans for a described device: compiled kernels
 * are taken as loaded, and their names can be read. Nothing else works, and nothing ever runs. tests/sh_dnn_plans.sh puts it on
 * the loader's path; results are CUresult. */
#include <stddef.h>

enum { SUCCESS = 0, STUB_LIBRARY = 34 };

int cuLibraryLoadData(void **library, const void *code);
int cuLibraryGetKernel(void **kernel, void *library, const char *name);
int cuKernelGetAttribute(int *value, int attribute, void *kernel, int device);

static char something; /* what handles point to */

int cuLibraryLoadData(void **library, const void *code)
{
    *library = &something;
    return code ? SUCCESS : STUB_LIBRARY;
}

int cuLibraryGetKernel(void **kernel, void *library, const char *name)
{
    *kernel = &something;
    return library == &something && name ? SUCCESS : STUB_LIBRARY;
}

int cuKernelGetAttribute(int *value, int attribute, void *kernel, int device)
{
    (void)attribute, (void)kernel, (void)device;
    *value = 0;
    return SUCCESS;
}

#define ANSWER(name, result)                                                                                 \
    int name(void);                                                                                          \
    int name(void)                                                                                           \
    {                                                                                                        \
        return result;                                                                                       \
    }

ANSWER(cuLibraryUnload, SUCCESS)
ANSWER(cuKernelSetAttribute, SUCCESS)

/* What cuDNN 9.19 looks up besides; it asks all of them at its start and complains about a missing one. */
ANSWER(cuInit, STUB_LIBRARY)
ANSWER(cuDriverGetVersion, STUB_LIBRARY)
ANSWER(cuGetErrorName, STUB_LIBRARY)
ANSWER(cuGetErrorString, STUB_LIBRARY)
ANSWER(cuDeviceGet, STUB_LIBRARY)
ANSWER(cuDeviceGetCount, STUB_LIBRARY)
ANSWER(cuDeviceGetAttribute, STUB_LIBRARY)
ANSWER(cuDevicePrimaryCtxRetain, STUB_LIBRARY)
ANSWER(cuDevicePrimaryCtxRelease, STUB_LIBRARY)
ANSWER(cuDevicePrimaryCtxReset, STUB_LIBRARY)
ANSWER(cuCtxGetCurrent, STUB_LIBRARY)
ANSWER(cuCtxGetDevice, STUB_LIBRARY)
ANSWER(cuCtxGetLimit, STUB_LIBRARY)
ANSWER(cuCtxPopCurrent, STUB_LIBRARY)
ANSWER(cuCtxPushCurrent, STUB_LIBRARY)
ANSWER(cuStreamGetCtx, STUB_LIBRARY)
ANSWER(cuStreamSynchronize, STUB_LIBRARY)
ANSWER(cuLibraryLoadFromFile, STUB_LIBRARY)
ANSWER(cuModuleLoadData, STUB_LIBRARY)
ANSWER(cuModuleLoadDataEx, STUB_LIBRARY)
ANSWER(cuModuleLoadFatBinary, STUB_LIBRARY)
ANSWER(cuModuleGetFunction, STUB_LIBRARY)
ANSWER(cuModuleGetGlobal_v2, STUB_LIBRARY)
ANSWER(cuModuleUnload, STUB_LIBRARY)
ANSWER(cuMemcpyDtoH_v2, STUB_LIBRARY)
ANSWER(cuFuncGetAttribute, STUB_LIBRARY)
ANSWER(cuFuncSetAttribute, STUB_LIBRARY)
ANSWER(cuLaunchKernel, STUB_LIBRARY)
ANSWER(cuLaunchKernelEx, STUB_LIBRARY)
ANSWER(cuLaunchCooperativeKernel, STUB_LIBRARY)
ANSWER(cuLinkCreate, STUB_LIBRARY)
ANSWER(cuLinkCreate_v2, STUB_LIBRARY)
ANSWER(cuLinkAddData, STUB_LIBRARY)
ANSWER(cuLinkAddData_v2, STUB_LIBRARY)
ANSWER(cuLinkAddFile_v2, STUB_LIBRARY)
ANSWER(cuLinkComplete, STUB_LIBRARY)
ANSWER(cuLinkDestroy, STUB_LIBRARY)
ANSWER(cuOccupancyMaxActiveBlocksPerMultiprocessor, STUB_LIBRARY)
ANSWER(cuOccupancyMaxPotentialClusterSize, STUB_LIBRARY)
ANSWER(cuTensorMapEncodeTiled, STUB_LIBRARY)
