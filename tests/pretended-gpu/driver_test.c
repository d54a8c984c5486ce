// Asserts that the pretended driver does what a driver must, and what README.md says of its settings and logs.
//     driver_test LIBCUDA EMULATOR
// Every case is a process of its own, with its own settings and directory of logs.
#undef NDEBUG
#define _GNU_SOURCE
#include <assert.h>
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

// ---------------------------------------------------------------- the driver's functions, by the names that cudarc asks for

static void *LIBRARY;
static struct {
    __typeof__(cuInit) *init;
    __typeof__(cuDriverGetVersion) *version;
    __typeof__(cuDeviceGetCount) *device_count;
    __typeof__(cuDeviceGet) *device;
    __typeof__(cuDeviceGetName) *device_name;
    __typeof__(cuDeviceGetAttribute) *device_attribute;
    __typeof__(cuDeviceTotalMem) *total_memory;
    __typeof__(cuDevicePrimaryCtxRetain) *retain;
    __typeof__(cuCtxSetCurrent) *set_current;
    __typeof__(cuCtxGetCurrent) *get_current;
    __typeof__(cuMemGetInfo) *memory_info;
    __typeof__(cuMemAlloc) *alloc;
    __typeof__(cuMemFree) *free;
    __typeof__(cuMemAllocHost) *alloc_host;
    __typeof__(cuMemFreeHost) *free_host;
    __typeof__(cuMemcpyHtoDAsync) *to_device;
    __typeof__(cuMemcpyDtoHAsync) *to_host;
    __typeof__(cuMemcpyDtoDAsync) *on_device;
    __typeof__(cuMemcpy2DAsync) *copy_2d;
    __typeof__(cuMemsetD8Async) *set;
    __typeof__(cuModuleLoadData) *load;
    __typeof__(cuModuleUnload) *unload;
    __typeof__(cuModuleGetFunction) *function;
    __typeof__(cuFuncSetAttribute) *function_attribute;
    __typeof__(cuLaunchKernel) *launch;
    __typeof__(cuTensorMapEncodeTiled) *tiled;
    __typeof__(cuTensorMapEncodeIm2col) *im2col;
    __typeof__(cuStreamCreate) *stream;
    __typeof__(cuStreamSynchronize) *wait_for_stream;
    __typeof__(cuEventCreate) *event;
    __typeof__(cuEventRecord) *record;
    __typeof__(cuEventSynchronize) *wait_for_event;
    __typeof__(cuGetErrorString) *words;
} cu;

static void *symbol(const char *name) {
    void *found = dlsym(LIBRARY, name);
    if (!found) fprintf(stderr, "%s is missing\n", name);
    assert(found);
    return found;
}

static void open_driver(const char *path) {
    LIBRARY = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!LIBRARY) fprintf(stderr, "%s\n", dlerror());
    assert(LIBRARY);
    cu.init = symbol("cuInit");
    cu.version = symbol("cuDriverGetVersion");
    cu.device_count = symbol("cuDeviceGetCount");
    cu.device = symbol("cuDeviceGet");
    cu.device_name = symbol("cuDeviceGetName");
    cu.device_attribute = symbol("cuDeviceGetAttribute");
    cu.total_memory = symbol("cuDeviceTotalMem_v2");
    cu.retain = symbol("cuDevicePrimaryCtxRetain");
    cu.set_current = symbol("cuCtxSetCurrent");
    cu.get_current = symbol("cuCtxGetCurrent");
    cu.memory_info = symbol("cuMemGetInfo_v2");
    cu.alloc = symbol("cuMemAlloc_v2");
    cu.free = symbol("cuMemFree_v2");
    cu.alloc_host = symbol("cuMemAllocHost_v2");
    cu.free_host = symbol("cuMemFreeHost");
    cu.to_device = symbol("cuMemcpyHtoDAsync_v2");
    cu.to_host = symbol("cuMemcpyDtoHAsync_v2");
    cu.on_device = symbol("cuMemcpyDtoDAsync_v2");
    cu.copy_2d = symbol("cuMemcpy2DAsync_v2");
    cu.set = symbol("cuMemsetD8Async");
    cu.load = symbol("cuModuleLoadData");
    cu.unload = symbol("cuModuleUnload");
    cu.function = symbol("cuModuleGetFunction");
    cu.function_attribute = symbol("cuFuncSetAttribute");
    cu.launch = symbol("cuLaunchKernel");
    cu.tiled = symbol("cuTensorMapEncodeTiled");
    cu.im2col = symbol("cuTensorMapEncodeIm2col");
    cu.stream = symbol("cuStreamCreate");
    cu.wait_for_stream = symbol("cuStreamSynchronize");
    cu.event = symbol("cuEventCreate");
    cu.record = symbol("cuEventRecord");
    cu.wait_for_event = symbol("cuEventSynchronize");
    cu.words = symbol("cuGetErrorString");
}

// ---------------------------------------------------------------- helpers

static char DIRECTORY[] = "/tmp/driver_test.XXXXXX"; // of the case; STUB_DIR is `logs` in it

/// Whether a log of the case has a text.
static int logged(const char *log, const char *text) {
    char path[256], contents[65536];
    snprintf(path, sizeof path, "%s/logs/%s", DIRECTORY, log);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    contents[fread(contents, 1, sizeof contents - 1, f)] = 0;
    fclose(f);
    return strstr(contents, text) != NULL;
}
static int refused(const char *text) { return logged("invalid.log", text); }
static int nothing_refused(void) { return !refused("\n"); }

static void use_device(void) {
    CUcontext context;
    assert(cu.init(0) == CUDA_SUCCESS);
    assert(cu.retain(&context, 0) == CUDA_SUCCESS);
    assert(cu.set_current(context) == CUDA_SUCCESS);
}

static CUdeviceptr block(size_t size) {
    CUdeviceptr address = 0;
    assert(cu.alloc(&address, size) == CUDA_SUCCESS);
    return address;
}

static size_t free_memory(void) {
    size_t left, total;
    assert(cu.memory_info(&left, &total) == CUDA_SUCCESS);
    return left;
}

// ---------------------------------------------------------------- device and context

static void the_device_is_an_h100(void) {
    int count = 0, version = 0, major = 0, shared = 0;
    size_t memory = 0;
    CUdevice device = 7;
    char name[64] = "";
    assert(cu.init(0) == CUDA_SUCCESS);
    assert(cu.init(1) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.device_count(&count) == CUDA_SUCCESS && count == 1);
    assert(cu.device(&device, 0) == CUDA_SUCCESS && device == 0);
    assert(cu.device(&device, 1) == CUDA_ERROR_INVALID_DEVICE);
    assert(cu.version(&version) == CUDA_SUCCESS && version == 13000);
    assert(cu.device_name(name, sizeof name, 0) == CUDA_SUCCESS && strstr(name, "H100"));
    assert(cu.total_memory(&memory, 0) == CUDA_SUCCESS && memory == 80ull << 30);
    assert(cu.device_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0) == CUDA_SUCCESS && major == 9);
    assert(cu.device_attribute(&shared, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0) == CUDA_SUCCESS && shared == 227 << 10);
    assert(cu.device_attribute(&major, CU_DEVICE_ATTRIBUTE_GPU_OVERLAP, 0) == CUDA_ERROR_NOT_SUPPORTED);
}

static void calls_before_init_are_refused(void) {
    int count;
    CUdevice device;
    CUcontext context;
    assert(cu.device_count(&count) == CUDA_ERROR_NOT_INITIALIZED);
    assert(cu.device(&device, 0) == CUDA_ERROR_NOT_INITIALIZED);
    assert(cu.retain(&context, 0) == CUDA_ERROR_NOT_INITIALIZED);
    assert(refused("cuDeviceGetCount before cuInit"));
}

/// What a thread without a context must not do.
static void *without_context(void *arg) {
    CUdeviceptr address;
    CUmodule module;
    CUstream stream;
    CUcontext context = (CUcontext)1;
    size_t left, total;
    void *host;
    assert(cu.alloc(&address, 16) == CUDA_ERROR_INVALID_CONTEXT);
    assert(cu.alloc_host(&host, 16) == CUDA_ERROR_INVALID_CONTEXT);
    assert(cu.memory_info(&left, &total) == CUDA_ERROR_INVALID_CONTEXT);
    assert(cu.load(&module, ".entry k() {}") == CUDA_ERROR_INVALID_CONTEXT);
    assert(cu.stream(&stream, 0) == CUDA_ERROR_INVALID_CONTEXT);
    assert(cu.get_current(&context) == CUDA_SUCCESS && context == NULL);
    assert(cu.set_current((CUcontext)1) == CUDA_ERROR_INVALID_CONTEXT);
    return arg;
}

static void every_thread_needs_a_context(void) {
    pthread_t thread;
    CUcontext context = NULL;
    use_device();
    assert(cu.get_current(&context) == CUDA_SUCCESS && context);
    assert(pthread_create(&thread, NULL, without_context, NULL) == 0);
    assert(pthread_join(thread, NULL) == 0);
    assert(refused("cuMemGetInfo in a thread without a context"));
}

static void what_is_not_there_says_so(void) {
    CUresult (*create)(void) = (CUresult (*)(void))symbol("cuCtxCreate_v4");
    const char *words = NULL;
    assert(create() == CUDA_ERROR_NOT_SUPPORTED);
    assert(refused("not in the stub: cuCtxCreate_v4"));
    assert(symbol("cuDeviceGetUuid") && symbol("cuDeviceGetUuid_v2"));
    assert(cu.words(CUDA_ERROR_NO_DEVICE, &words) == CUDA_SUCCESS && !strcmp(words, "no CUDA-capable device is detected"));
    assert(cu.words((CUresult)12345, &words) == CUDA_ERROR_INVALID_VALUE && !words);
}

// ---------------------------------------------------------------- memory

static void memory_is_counted(void) {
    use_device();
    size_t before = free_memory();
    CUdeviceptr a = block(MIB), b = block(3 * MIB);
    assert(free_memory() == before - 4 * MIB);
    assert(cu.free(a) == CUDA_SUCCESS && free_memory() == before - 3 * MIB);
    assert(cu.free(b) == CUDA_SUCCESS && free_memory() == before);
    assert(nothing_refused());
    dlclose(LIBRARY);
    assert(logged("summary.txt", "device memory: 2 allocations, 2 frees, peak 4194304 bytes"));
}

static void bad_allocations_are_refused(void) {
    CUdeviceptr a = 0, b;
    use_device();
    assert(cu.alloc(&a, 0) == CUDA_ERROR_INVALID_VALUE && refused("allocation of 0 bytes"));
    assert(cu.alloc(&a, (80ull << 30) + 1) == CUDA_ERROR_OUT_OF_MEMORY && refused("out of memory"));
    b = block(MIB);
    assert(cu.alloc(&a, 80ull << 30) == CUDA_ERROR_OUT_OF_MEMORY);
    assert(cu.alloc(&a, SIZE_MAX) == CUDA_ERROR_OUT_OF_MEMORY);
    assert(cu.alloc(&a, SIZE_MAX - MIB + 1) == CUDA_ERROR_OUT_OF_MEMORY); // with what is live, 0
    assert(a == 0 && cu.free(b) == CUDA_SUCCESS);
}

static void bad_frees_are_refused(void) {
    use_device();
    CUdeviceptr a = block(MIB), b = block(MIB);
    assert(cu.free(a + 16) == CUDA_ERROR_INVALID_VALUE);
    assert(nothing_refused() == 0 && free_memory() == (80ull << 30) - 2 * MIB);
    assert(cu.free(a) == CUDA_SUCCESS);
    assert(cu.free(a) == CUDA_ERROR_INVALID_VALUE);
    assert(refused("free of ") && refused(", which is no block"));
    assert(cu.free(b) == CUDA_SUCCESS && free_memory() == 80ull << 30);
}

static void pinned_memory_is_counted_by_itself(void) {
    void *host = NULL;
    use_device();
    assert(cu.alloc_host(&host, 100) == CUDA_SUCCESS && (uintptr_t)host % 64 == 0);
    memset(host, 1, 100);
    assert(free_memory() == 80ull << 30);
    assert(cu.free((CUdeviceptr)host) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.free_host(host) == CUDA_SUCCESS);
    assert(cu.free_host(host) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.alloc_host(&host, 0) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.alloc_host(&host, SIZE_MAX) == CUDA_ERROR_OUT_OF_MEMORY);
    dlclose(LIBRARY);
    assert(logged("summary.txt", "pinned: 1 allocations, peak 100 bytes"));
}

static void nothing_lies_behind_a_block(void) {
    use_device();
    CUdeviceptr a = block(4096);
    pid_t child = fork();
    if (!child) {
        *(volatile char *)(a + 4095) = 1;
        *(volatile char *)(a + 4096) = 1;
        _exit(0);
    }
    int status;
    assert(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

// ---------------------------------------------------------------- copies

static void copies_go_round(void) {
    char sent[1000], received[1000] = {0};
    for (int i = 0; i < 1000; i++) sent[i] = (char)(i * 7);
    use_device();
    CUdeviceptr a = block(1000), b = block(1000);
    assert(cu.to_device(a, sent, 1000, NULL) == CUDA_SUCCESS);
    assert(cu.on_device(b, a, 1000, NULL) == CUDA_SUCCESS);
    assert(cu.to_host(received, b, 1000, NULL) == CUDA_SUCCESS && !memcmp(sent, received, 1000));
    assert(cu.set(b + 10, 5, 3, NULL) == CUDA_SUCCESS);
    memset(sent + 10, 5, 3);
    assert(cu.to_host(received, b, 1000, NULL) == CUDA_SUCCESS && !memcmp(sent, received, 1000));
    assert(cu.to_device(0, sent, 0, NULL) == CUDA_SUCCESS && cu.set(0, 1, 0, NULL) == CUDA_SUCCESS);
    assert(nothing_refused());
    dlclose(LIBRARY);
    assert(logged("summary.txt", "host to device 1 copies 1000 bytes\n"));
    assert(logged("summary.txt", "device to host 2 copies 2000 bytes\n"));
    assert(logged("summary.txt", "device to device 1 copies 1000 bytes\n"));
}

static void copies_outside_a_block_are_refused(void) {
    char host[64] = {0};
    use_device();
    CUdeviceptr a = block(64), b = block(64);
    assert(cu.to_device(a, host, 65, NULL) == CUDA_ERROR_INVALID_VALUE);
    assert(refused("copy to the device of 65 bytes at "));
    assert(cu.to_device(a + 60, host, 5, NULL) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.to_device(a + 60, host, SIZE_MAX, NULL) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.to_device(a + 60, host, 4, NULL) == CUDA_SUCCESS);
    assert(cu.to_host(host, a + 64, 1, NULL) == CUDA_ERROR_INVALID_VALUE);
    assert(refused("copy from the device of 1 bytes at "));
    assert(cu.on_device(a, b + 1, 64, NULL) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.on_device(a + 1, b, 64, NULL) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.set(a, 1, 65, NULL) == CUDA_ERROR_INVALID_VALUE && refused("memset of 65 bytes"));
    assert(cu.free(a) == CUDA_SUCCESS);
    assert(cu.to_device(a, host, 1, NULL) == CUDA_ERROR_INVALID_VALUE);
    assert(refused("not inside a live block"));
    dlclose(LIBRARY);
    assert(logged("summary.txt", "host to device 1 copies 4 bytes\n")); // what is refused is not counted
}

/// 3 rows of 4 bytes, 16 bytes apart on the device.
static CUDA_MEMCPY2D to_rows(CUdeviceptr to, const char *from) {
    return (CUDA_MEMCPY2D){.srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = from, .srcPitch = 4, .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                           .dstDevice = to, .dstPitch = 16, .WidthInBytes = 4, .Height = 3};
}
static CUDA_MEMCPY2D from_rows(char *to, CUdeviceptr from) {
    return (CUDA_MEMCPY2D){.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = from, .srcPitch = 16, .dstMemoryType = CU_MEMORYTYPE_HOST,
                           .dstHost = to, .dstPitch = 4, .WidthInBytes = 4, .Height = 3};
}

static void rows_go_round(void) {
    char received[12], flat[36];
    use_device();
    CUdeviceptr a = block(36), b = block(12); // 36 bytes are just enough
    CUDA_MEMCPY2D up = to_rows(a, "abcdefghijkl"), down = from_rows(received, a), across = down;
    assert(cu.copy_2d(&up, NULL) == CUDA_SUCCESS);
    assert(cu.copy_2d(&down, NULL) == CUDA_SUCCESS && !memcmp(received, "abcdefghijkl", 12));
    assert(cu.to_host(flat, a, 36, NULL) == CUDA_SUCCESS);
    assert(!memcmp(flat, "abcd", 4) && !memcmp(flat + 16, "efgh", 4) && !memcmp(flat + 32, "ijkl", 4) && flat[4] == 0);
    across.dstMemoryType = CU_MEMORYTYPE_DEVICE, across.dstDevice = b, across.dstPitch = 0; // rows without gaps
    assert(cu.copy_2d(&across, NULL) == CUDA_SUCCESS);
    assert(cu.to_host(flat, b, 12, NULL) == CUDA_SUCCESS && !memcmp(flat, "abcdefghijkl", 12));
    assert(nothing_refused());
}

static void bad_rows_are_refused(void) {
    char received[12];
    use_device();
    CUdeviceptr a = block(36);
    CUDA_MEMCPY2D low = to_rows(a + 1, "abcdefghijkl"), narrow = to_rows(a, ""), wide = narrow, tall = narrow, host = narrow;
    CUDA_MEMCPY2D array = narrow, offset = narrow;
    CUDA_MEMCPY2D far = from_rows(received, a + 1), narrow_source = from_rows(received, a);
    assert(cu.copy_2d(&low, NULL) == CUDA_ERROR_INVALID_VALUE && refused("copy to the device of 36 bytes at "));
    assert(cu.copy_2d(&far, NULL) == CUDA_ERROR_INVALID_VALUE && refused("copy from the device of 36 bytes at "));
    narrow.dstPitch = 3, narrow_source.srcPitch = 3, wide.dstPitch = 1ull << 31, tall.Height = SIZE_MAX;
    assert(cu.copy_2d(&narrow, NULL) == CUDA_ERROR_INVALID_VALUE && refused("2D copy of 4 x 3 bytes with pitches 4 and 3"));
    assert(cu.copy_2d(&narrow_source, NULL) == CUDA_ERROR_INVALID_VALUE);
    wide.Height = 1;
    assert(cu.copy_2d(&wide, NULL) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.copy_2d(&tall, NULL) == CUDA_ERROR_INVALID_VALUE);
    tall.Height = (1ull << 60) + 1; // times 16 bytes, 16 in 64 bits
    assert(cu.copy_2d(&tall, NULL) == CUDA_ERROR_INVALID_VALUE);
    host.dstMemoryType = CU_MEMORYTYPE_HOST, array.srcMemoryType = CU_MEMORYTYPE_ARRAY, offset.dstY = 1;
    assert(cu.copy_2d(&host, NULL) == CUDA_ERROR_NOT_SUPPORTED);
    assert(cu.copy_2d(&array, NULL) == CUDA_ERROR_NOT_SUPPORTED);
    assert(cu.copy_2d(&offset, NULL) == CUDA_ERROR_NOT_SUPPORTED);
}

// ---------------------------------------------------------------- kernels

/// A pointer, a number of 2 bytes and a struct of 8; at most 256 threads; 1024 + 4 bytes of static shared memory.
static const char PTX[] = ".version 9.0\n.target sm_90a\n.address_size 64\n"
                          ".extern .shared .align 16 .b8 dynamic_shared_mem[];\n"
                          ".visible .entry kernel_b8(\n\t.param .u64 kernel_b8_param_0,\n\t.param .u16 kernel_b8_param_1,\n"
                          "\t.param .align 4 .b8 kernel_b8_param_2[8]\n)\n.maxntid 256, 1, 1\n{\n"
                          "\t.shared .align 4 .b8 tile[1024];\n\t.shared .align 4 .u32 flag;\n\tret;\n}\n";

static CUfunction kernel(void) {
    CUmodule module;
    CUfunction function;
    assert(cu.load(&module, PTX) == CUDA_SUCCESS);
    assert(cu.function(&function, module, "kernel_b8") == CUDA_SUCCESS);
    return function;
}

/// Launches on a buffer; a block of 32 threads unless the case says otherwise.
static CUresult launch(CUfunction function, CUdeviceptr buffer, unsigned grid_y, unsigned x, unsigned y, unsigned z, unsigned shared) {
    short number = 1;
    int pair[2] = {1, 2};
    void *parameters[] = {&buffer, &number, pair};
    return cu.launch(function, 1, grid_y, 1, x, y, z, shared, NULL, parameters, NULL);
}

static void kernels_are_loaded_and_launched(void) {
    CUmodule module;
    CUfunction function;
    use_device();
    CUdeviceptr a = block(64);
    assert(chdir("/") == 0); // the logs stay where they were
    function = kernel();
    assert(launch(function, a, 1, 32, 1, 1, 0) == CUDA_SUCCESS);
    assert(launch(function, a + 63, 2, 16, 16, 1, (48 << 10) - 1028) == CUDA_SUCCESS);
    assert(launch(function, a + 64, 1, 32, 1, 1, 0) == CUDA_SUCCESS); // an empty tensor at the end of its block
    assert(nothing_refused());
    assert(cu.load(&module, PTX) == CUDA_SUCCESS);
    assert(cu.function(&function, module, "other") == CUDA_ERROR_NOT_FOUND);
    assert(refused("00001.ptx has no function other but kernel_b8"));
    dlclose(LIBRARY);
    assert(logged("modules/00000.ptx", PTX));
    assert(logged("summary.txt", "launches 3 of 2 kernels (modules 2, ptxas 0.0 s)\n"));
    assert(logged("summary.txt", "       3     0      0   1028     18 00000.ptx kernel_b8\n"));
}

static void bad_modules_are_refused(void) {
    CUmodule module = NULL;
    CUfunction function;
    static char many[65536] = ".visible .entry k(";
    use_device();
    assert(cu.load(&module, "\177ELF") == CUDA_ERROR_INVALID_IMAGE && refused("a cubin"));
    assert(cu.load(&module, ".version 9.0\n") == CUDA_ERROR_INVALID_PTX && refused("00000.ptx: no kernel"));
    assert(cu.load(&module, ".entry k(.param .align 8 .b8 p[40000]) { }") == CUDA_ERROR_INVALID_PTX && refused("40000 bytes of parameters"));
    assert(cu.load(&module, ".entry k() { .shared .align 4 .b8 s[49153]; }") == CUDA_ERROR_INVALID_PTX);
    assert(refused("49153 bytes of static shared memory"));
    for (int i = 0; i < 513; i++) strcat(many, ".param .u8 p,\n");
    assert(cu.load(&module, strcat(many, ") { }")) == CUDA_ERROR_INVALID_PTX && refused("more than 512 parameters"));
    assert(!module);
    assert(launch(NULL, block(4), 1, 32, 1, 1, 0) == CUDA_ERROR_INVALID_HANDLE && refused("a module or function that is not loaded"));
    assert(cu.load(&module, PTX) == CUDA_SUCCESS && cu.function(&function, module, "kernel_b8") == CUDA_SUCCESS);
    assert(cu.unload(module) == CUDA_SUCCESS && cu.unload(module) == CUDA_ERROR_INVALID_HANDLE);
    assert(launch(function, block(4), 1, 32, 1, 1, 0) == CUDA_ERROR_INVALID_HANDLE);
}

static void blocks_and_grids_have_limits(void) {
    use_device();
    CUdeviceptr a = block(4);
    CUfunction function = kernel();
    CUmodule module;
    assert(launch(function, a, 1, 0, 1, 1, 0) == CUDA_ERROR_INVALID_VALUE && refused("kernel_b8: a grid of 1 1 1 blocks of 0 1 1"));
    assert(launch(function, a, 65536, 32, 1, 1, 0) == CUDA_ERROR_INVALID_VALUE && refused("kernel_b8: a grid of 1 65536 1\n"));
    assert(launch(function, a, 1, 32, 8, 2, 0) == CUDA_ERROR_INVALID_VALUE && refused("kernel_b8: 512 threads, 256 allowed"));
    assert(cu.load(&module, ".entry k() { }") == CUDA_SUCCESS && cu.function(&function, module, "k") == CUDA_SUCCESS);
    assert(launch(function, a, 1, 1024, 1, 1, 0) == CUDA_SUCCESS);
    assert(launch(function, a, 1, 1024, 2, 1, 0) == CUDA_ERROR_INVALID_VALUE && refused("k: blocks of 1024 2 1"));
    assert(launch(function, a, 1, 1025, 1, 1, 0) == CUDA_ERROR_INVALID_VALUE);
    assert(launch(function, a, 1, 1, 1, 65, 0) == CUDA_ERROR_INVALID_VALUE && refused("k: blocks of 1 1 65"));
    assert(launch(function, a, 1, 1 << 16, 1 << 16, 1, 0) == CUDA_ERROR_INVALID_VALUE); // 2^32 threads
}

static void shared_memory_has_limits(void) {
    CUfunction_attribute most = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    int limit = (227 << 10) - 1028;
    use_device();
    CUdeviceptr a = block(4);
    CUfunction function = kernel();
    assert(launch(function, a, 1, 32, 1, 1, (48 << 10) - 1027) == CUDA_ERROR_INVALID_VALUE);
    assert(refused("kernel_b8: 48125 bytes of dynamic shared memory, 48124 allowed"));
    assert(cu.function_attribute(function, most, limit + 1) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.function_attribute(function, most, -1) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.function_attribute(function, most, INT32_MAX) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.function_attribute(function, CU_FUNC_ATTRIBUTE_NUM_REGS, 1) == CUDA_ERROR_NOT_SUPPORTED);
    assert(cu.function_attribute(function, most, limit) == CUDA_SUCCESS);
    assert(launch(function, a, 1, 32, 1, 1, limit) == CUDA_SUCCESS);
    assert(launch(function, a, 1, 32, 1, 1, limit + 1) == CUDA_ERROR_INVALID_VALUE);
    assert(launch(function, a, 1, 32, 1, 1, 1u << 31) == CUDA_ERROR_INVALID_VALUE);
}

static void parameters_are_checked(void) {
    use_device();
    CUdeviceptr a = block(4);
    CUfunction function = kernel();
    void *missing[] = {&a, NULL, NULL}, *extra[] = {NULL};
    assert(cu.launch(function, 1, 1, 1, 32, 1, 1, 0, NULL, missing, NULL) == CUDA_ERROR_INVALID_VALUE);
    assert(refused("kernel_b8: parameter 1 is missing"));
    assert(cu.launch(function, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL) == CUDA_ERROR_INVALID_VALUE);
    assert(cu.launch(function, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra) == CUDA_ERROR_NOT_SUPPORTED);
    assert(launch(function, 0, 1, 32, 1, 1, 0) == CUDA_ERROR_ILLEGAL_ADDRESS);
    assert(launch(function, a + 5, 1, 32, 1, 1, 0) == CUDA_ERROR_ILLEGAL_ADDRESS);
    assert(cu.free(a) == CUDA_SUCCESS);
    assert(launch(function, a, 1, 32, 1, 1, 0) == CUDA_ERROR_ILLEGAL_ADDRESS);
    assert(refused("kernel_b8: parameter 0 of 3 is ") && refused(", not inside a live block"));
    dlclose(LIBRARY);
    assert(logged("summary.txt", "launches 0 of 1 kernels"));
}

/// The emulator looks for the CUDA C++ of a kernel, and there is none.
static void a_kernel_that_cannot_be_computed_fails(void) {
    use_device();
    assert(freopen("/dev/null", "w", stderr));
    assert(launch(kernel(), block(4), 1, 32, 1, 1, 0) == CUDA_ERROR_LAUNCH_FAILED);
    assert(refused("kernel_b8: could not be run on the CPU"));
}

// ---------------------------------------------------------------- tensor maps

typedef struct { cuuint64_t dims[5], strides[5]; cuuint32_t rank, box[5], steps[5]; CUtensorMapSwizzle swizzle; } Tile;

/// 64 x 64 numbers of 16 bits, of which 8 x 64 are copied at a time.
static Tile good(void) {
    return (Tile){.dims = {64, 64, 1, 1, 1}, .strides = {128, 8192, 8192, 8192}, .rank = 2, .box = {64, 8, 1, 1, 1}, .steps = {1, 1, 1, 1, 1},
                  .swizzle = CU_TENSOR_MAP_SWIZZLE_128B};
}

static CUresult encode(void *map, CUdeviceptr address, Tile t) {
    return cu.tiled(map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, t.rank, (void *)address, t.dims, t.strides, t.box, t.steps,
                    CU_TENSOR_MAP_INTERLEAVE_NONE, t.swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

static void tensor_maps_are_checked(void) {
    alignas(64) char map[192];
    use_device();
    CUdeviceptr a = block(8192);
    Tile rank_0 = good(), rank_6 = good(), flat = good(), long_one = good(), step = good();
    Tile odd = good(), far = good(), narrow = good(), tall = good(), wide = good();
    assert(encode(map, a, good()) == CUDA_SUCCESS && nothing_refused());
    assert(encode(map + 32, a, good()) == CUDA_ERROR_INVALID_VALUE && refused("the descriptor must be aligned to 64 bytes"));
    assert(encode(map, a + 8, good()) == CUDA_ERROR_INVALID_VALUE && refused("the tensor must be aligned to 16 bytes"));
    assert(encode(map, a + 8192, good()) == CUDA_ERROR_INVALID_VALUE && refused("tensor map of 1 bytes at "));
    rank_0.rank = 0, rank_6.rank = 6, flat.dims[1] = 0, long_one.dims[0] = (1ull << 32) + 1, step.steps[1] = 9, odd.strides[0] = 136;
    assert(encode(map, a, rank_0) == CUDA_ERROR_INVALID_VALUE && refused(": rank\n"));
    assert(encode(map, a, rank_6) == CUDA_ERROR_INVALID_VALUE);
    assert(encode(map, a, flat) == CUDA_ERROR_INVALID_VALUE && encode(map, a, long_one) == CUDA_ERROR_INVALID_VALUE && refused(": a dimension\n"));
    assert(encode(map, a, step) == CUDA_ERROR_INVALID_VALUE && refused(": an element stride\n"));
    far.strides[0] = 1ull << 40, narrow.box[0] = 4, tall.box[1] = 257, wide.swizzle = CU_TENSOR_MAP_SWIZZLE_64B;
    assert(encode(map, a, odd) == CUDA_ERROR_INVALID_VALUE && encode(map, a, far) == CUDA_ERROR_INVALID_VALUE);
    assert(refused("strides 136 0") && refused("strides 1099511627776 0"));
    assert(encode(map, a, narrow) == CUDA_ERROR_INVALID_VALUE && refused("the inner side of the box must be a multiple of 16 bytes"));
    assert(encode(map, a, tall) == CUDA_ERROR_INVALID_VALUE && refused(": a side of the box\n"));
    assert(encode(map, a, wide) == CUDA_ERROR_INVALID_VALUE && refused("wider than the swizzle"));
}

static CUresult encode_im2col(void *map, CUdeviceptr address, unsigned rank, unsigned channels, unsigned pixels) {
    Tile t = good();
    int corner[3] = {0};
    return cu.im2col(map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, rank, (void *)address, t.dims, t.strides, corner, corner, channels, pixels, t.steps,
                     CU_TENSOR_MAP_INTERLEAVE_NONE, t.swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

static void maps_of_convolutions_are_checked(void) {
    alignas(64) char map[128];
    use_device();
    CUdeviceptr a = block(8192);
    assert(encode_im2col(map, a, 4, 64, 1024) == CUDA_SUCCESS && nothing_refused());
    assert(encode_im2col(map, a, 2, 64, 1024) == CUDA_ERROR_INVALID_VALUE && refused("im2col needs a rank of 3"));
    assert(encode_im2col(map, a, 4, 64, 1025) == CUDA_ERROR_INVALID_VALUE && refused("channels or pixels"));
    assert(encode_im2col(map, a, 4, 63, 1024) == CUDA_ERROR_INVALID_VALUE && refused("the inner side of the box must be a multiple of 16 bytes"));
}

static void maps_of_convolutions_are_not_computed(void) {
    alignas(64) char map[128];
    use_device();
    assert(encode_im2col(map, block(8192), 4, 64, 1024) == CUDA_ERROR_NOT_SUPPORTED);
}

// ---------------------------------------------------------------- streams, events and threads

static void waits_are_counted(void) {
    CUstream stream;
    CUevent event;
    use_device();
    assert(cu.stream(&stream, 0) == CUDA_SUCCESS && cu.event(&event, 0) == CUDA_SUCCESS);
    assert(cu.record(event, stream) == CUDA_SUCCESS && cu.wait_for_event(event) == CUDA_SUCCESS);
    assert(cu.wait_for_stream(stream) == CUDA_SUCCESS && cu.wait_for_stream(stream) == CUDA_SUCCESS);
    dlclose(LIBRARY);
    assert(logged("summary.txt", "waits: 1 for events, 2 for streams or the context; 1 events recorded, 0 waits between streams"));
    assert(logged("events.log", " sync 0 0 stream\n"));
}

static void events_are_logged_only_if_wanted(void) {
    use_device();
    dlclose(LIBRARY);
    assert(logged("summary.txt", "launches 0") && !logged("events.log", ""));
}

enum { THREADS = 8, ROUNDS = 2000 };
static pthread_barrier_t START;

static void *allocate_and_copy(void *context) {
    char sent[256], received[256];
    assert(cu.set_current(context) == CUDA_SUCCESS);
    CUfunction function = kernel();
    pthread_barrier_wait(&START);
    for (int i = 0; i < ROUNDS; i++) {
        CUdeviceptr a = block(sizeof sent);
        memset(sent, (int)(a >> 12) + i, sizeof sent);
        assert(cu.to_device(a, sent, sizeof sent, NULL) == CUDA_SUCCESS);
        assert(launch(function, a, 1, 32, 1, 1, 0) == CUDA_SUCCESS);
        assert(cu.to_host(received, a, sizeof received, NULL) == CUDA_SUCCESS && !memcmp(sent, received, sizeof sent));
        assert(free_memory() < 80ull << 30);
        assert(cu.free(a) == CUDA_SUCCESS);
    }
    return NULL;
}

static void threads_do_not_disturb_each_other(void) {
    pthread_t threads[THREADS];
    CUcontext context;
    use_device();
    assert(cu.get_current(&context) == CUDA_SUCCESS);
    pthread_barrier_init(&START, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) assert(pthread_create(&threads[i], NULL, allocate_and_copy, context) == 0);
    for (int i = 0; i < THREADS; i++) assert(pthread_join(threads[i], NULL) == 0);
    assert(nothing_refused() && free_memory() == 80ull << 30);
    dlclose(LIBRARY);
    assert(logged("summary.txt", "launches 16000 of 8 kernels") && logged("summary.txt", "host to device 16000 copies 4096000 bytes"));
}

// ---------------------------------------------------------------- settings

static void no_device(void) {
    int count;
    assert(cu.init(0) == CUDA_ERROR_NO_DEVICE && refused("there is no device"));
    assert(cu.device_count(&count) == CUDA_ERROR_NOT_INITIALIZED);
}

static void old_driver(void) {
    CUmodule module;
    int version;
    use_device();
    assert(cu.version(&version) == CUDA_SUCCESS && version < 13000);
    assert(cu.load(&module, PTX) == CUDA_ERROR_UNSUPPORTED_PTX_VERSION && refused("its PTX is newer than this driver"));
}

static void little_memory(void) {
    size_t total;
    CUdeviceptr a;
    use_device();
    assert(free_memory() == 600 * MIB && cu.total_memory(&total, 0) == CUDA_SUCCESS && total == 600 * MIB);
    assert(cu.alloc(&a, 600 * MIB + 1) == CUDA_ERROR_OUT_OF_MEMORY && cu.alloc(&a, 600 * MIB) == CUDA_SUCCESS);
}

static void another_capability(void) {
    alignas(64) char map[128];
    int major, minor, shared;
    use_device();
    assert(cu.device_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0) == CUDA_SUCCESS && major == 8);
    assert(cu.device_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0) == CUDA_SUCCESS && minor == 6);
    assert(cu.device_attribute(&shared, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0) == CUDA_SUCCESS && shared == 99 << 10);
    assert(encode(map, block(8192), good()) == CUDA_ERROR_NOT_SUPPORTED);
}

static void noise_of_two_sizes(void) {
    float numbers[16] = {0};
    use_device();
    CUdeviceptr a = block(64);
    assert(cu.to_host(numbers, a, 32, NULL) == CUDA_SUCCESS && numbers[0] == 0);
    assert(cu.to_host(numbers, a, 8, NULL) == CUDA_SUCCESS && numbers[1] != 0 && numbers[2] == 0);
    assert(cu.to_host(numbers, a, 64, NULL) == CUDA_SUCCESS && numbers[15] != 0);
    for (int i = 0; i < 16; i++) assert(numbers[i] >= -1 && numbers[i] <= 1);
}

static void no_noise_where_kernels_are_computed(void) {
    float number = 1;
    use_device();
    assert(cu.to_host(&number, block(4), 4, NULL) == CUDA_SUCCESS && number == 0);
}

/// The seconds that ten launches take.
static double seconds_of_launches(void) {
    struct timespec begin, end;
    use_device();
    CUdeviceptr a = block(4);
    CUfunction function = kernel();
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < 10; i++) assert(launch(function, a, 1, 32, 1, 1, 0) == CUDA_SUCCESS);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return end.tv_sec - begin.tv_sec + 1e-9 * (end.tv_nsec - begin.tv_nsec);
}

static void launches_take_their_time(void) { assert(seconds_of_launches() >= 0.2); }

static const char REPORT[] = "#!/bin/sh\necho 'ptxas info : 0 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads'\n"
                             "echo 'ptxas info : Used 145 registers'\n";

static void registers_are_counted(void) {
    CUmodule module;
    CUfunction function;
    FILE *f = fopen("ptxas", "w");
    assert(f && fputs(REPORT, f) > 0 && fclose(f) == 0 && chmod("ptxas", 0755) == 0);
    use_device();
    CUdeviceptr a = block(4);
    assert(cu.load(&module, ".entry k() { }") == CUDA_SUCCESS && cu.function(&function, module, "k") == CUDA_SUCCESS);
    assert(launch(function, a, 1, 448, 1, 1, 0) == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES); // 14 warps of 32 x 152 registers
    assert(refused("k: 448 threads of 145 registers"));
    assert(launch(function, a, 1, 416, 1, 1, 0) == CUDA_SUCCESS);
    dlclose(LIBRARY);
    assert(logged("summary.txt", "       1   145     12      0      0 00000.ptx k\n"));
}

static void what_ptxas_refuses_is_refused(void) {
    CUmodule module;
    use_device();
    assert(cu.load(&module, PTX) == CUDA_ERROR_INVALID_PTX && refused("00000.ptx: ptxas refuses it: "));
}

// ---------------------------------------------------------------- the cases

typedef struct { const char *name; void (*run)(void); const char *setting; int emulated; } Case;
static const Case CASES[] = {
    {"the device is an H100", the_device_is_an_h100},
    {"calls before cuInit are refused", calls_before_init_are_refused},
    {"every thread needs a context", every_thread_needs_a_context},
    {"what is not there says so", what_is_not_there_says_so},
    {"memory is counted", memory_is_counted},
    {"bad allocations are refused", bad_allocations_are_refused},
    {"bad frees are refused", bad_frees_are_refused},
    {"pinned memory is counted by itself", pinned_memory_is_counted_by_itself},
    {"nothing lies behind a block", nothing_lies_behind_a_block},
    {"copies go round", copies_go_round},
    {"copies outside a block are refused", copies_outside_a_block_are_refused},
    {"rows go round", rows_go_round},
    {"bad rows are refused", bad_rows_are_refused},
    {"kernels are loaded and launched", kernels_are_loaded_and_launched},
    {"bad modules are refused", bad_modules_are_refused},
    {"blocks and grids have limits", blocks_and_grids_have_limits},
    {"shared memory has limits", shared_memory_has_limits},
    {"parameters are checked", parameters_are_checked},
    {"a kernel that cannot be computed fails", a_kernel_that_cannot_be_computed_fails, .emulated = 1},
    {"tensor maps are checked", tensor_maps_are_checked},
    {"maps of convolutions are checked", maps_of_convolutions_are_checked},
    {"maps of convolutions are not computed", maps_of_convolutions_are_not_computed, .emulated = 1},
    {"waits are counted", waits_are_counted, "STUB_EVENTS=1"},
    {"events are logged only if wanted", events_are_logged_only_if_wanted},
    {"STUB_EVENTS=0", events_are_logged_only_if_wanted, "STUB_EVENTS=0"},
    {"threads do not disturb each other", threads_do_not_disturb_each_other},
    {"STUB_NO_DEVICE=1", no_device, "STUB_NO_DEVICE=1"},
    {"STUB_NO_DEVICE=0", the_device_is_an_h100, "STUB_NO_DEVICE=0"},
    {"STUB_OLD_DRIVER=1", old_driver, "STUB_OLD_DRIVER=1"},
    {"STUB_MEMORY_MIB", little_memory, "STUB_MEMORY_MIB=600"},
    {"STUB_SM", another_capability, "STUB_SM=86"},
    {"STUB_NOISE", noise_of_two_sizes, "STUB_NOISE=64,8"},
    {"STUB_NOISE where kernels are computed", no_noise_where_kernels_are_computed, "STUB_NOISE=4", .emulated = 1},
    {"STUB_LAUNCH_US", launches_take_their_time, "STUB_LAUNCH_US=20000"},
    {"STUB_PTXAS", registers_are_counted, "STUB_PTXAS=./ptxas"},
    {"STUB_PTXAS that refuses", what_ptxas_refuses_is_refused, "STUB_PTXAS=/bin/false"},
};
enum { CASE_COUNT = sizeof CASES / sizeof *CASES };

/// The settings of a case and no others.
static void set_environment(const Case *c, const char *emulator) {
    static char setting[64];
    static const char *names[] = {"STUB_EVENTS", "STUB_NO_DEVICE", "STUB_OLD_DRIVER", "STUB_MEMORY_MIB", 
                                  "STUB_SM", "STUB_NOISE", "STUB_LAUNCH_US", "STUB_PTXAS", "STUB_EXECUTE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
    setenv("STUB_DIR", "logs", 1);
    if (c->emulated) setenv("STUB_EXECUTE", emulator, 1);
    if (c->setting) putenv(strcpy(setting, c->setting));
}

static int passes(const Case *c, const char *driver, const char *emulator) {
    int status;
    pid_t child = fork();
    assert(child >= 0);
    if (!child) {
        assert(chdir(DIRECTORY) == 0);
        set_environment(c, emulator);
        open_driver(driver);
        c->run();
        exit(0);
    }
    assert(waitpid(child, &status, 0) == child);
    return status == 0;
}

int main(int count, char **arguments) {
    assert(count == 3);
    char command[64], *driver = realpath(arguments[1], NULL), *emulator = realpath(arguments[2], NULL);
    int failed = 0;
    assert(driver && emulator);
    for (const Case *c = CASES; c < CASES + CASE_COUNT; c++) {
        strcpy(DIRECTORY + strlen(DIRECTORY) - 6, "XXXXXX");
        assert(mkdtemp(DIRECTORY));
        if (!passes(c, driver, emulator)) fprintf(stderr, "driver_test: failed: %s\n", c->name), failed++;
        snprintf(command, sizeof command, "rm -r %s", DIRECTORY);
        assert(system(command) == 0);
    }
    printf("driver_test: %d of %d cases passed\n", CASE_COUNT - failed, CASE_COUNT);
    return failed != 0;
}
