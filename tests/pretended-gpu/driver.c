// A libcuda.so.1 without a GPU: pretends to be one H100, keeps device memory in host memory, checks what it is asked for and
// counts it. What CUDA would refuse is refused with the same error and written to invalid.log. See README.md.
#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// ---------------------------------------------------------------- settings and the device

enum { MAX_NOISE = 64 };
static struct {
    int capability;            // STUB_SM: 90 is 9.0
    int no_device, old_driver; // STUB_NO_DEVICE, STUB_OLD_DRIVER
    const char *ptxas;         // STUB_PTXAS
    useconds_t launch;         // STUB_LAUNCH_US
    size_t noise[MAX_NOISE];   // STUB_NOISE
    int noise_count;
} SETTINGS = {.capability = 90};

enum {
    SHARED_DEFAULT = 48 << 10, REGISTERS = 65536, MAX_PITCH = 0x7fffffff,
    MAX_THREADS = 1024, MAX_BLOCK_Z = 64, MAX_GRID_X = 0x7fffffff, MAX_GRID_YZ = 65535,
};

/// Bytes of shared memory that a block may ask for.
static unsigned shared_limit(void) {
    switch (SETTINGS.capability) {
    case 75: return 64 << 10;
    case 80: case 87: return 163 << 10;
    case 86: case 89: case 120: return 99 << 10;
    default: return 227 << 10;
    }
}

// ---------------------------------------------------------------- counters, and the lock over all that changes

typedef unsigned long long Count;
static struct {
    Count launches, syncs, event_syncs, stream_waits, events;
    double ptxas_seconds;
} COUNTS;

static pthread_mutex_t LOCK = PTHREAD_MUTEX_INITIALIZER;
static void lock(void) { pthread_mutex_lock(&LOCK); }
static CUresult unlock(CUresult result) { pthread_mutex_unlock(&LOCK); return result; }

// ---------------------------------------------------------------- logs

enum { PATH_SIZE = PATH_MAX + 32 };
static char LOGS[PATH_MAX]; // STUB_DIR, absolute
static FILE *INVALID, *EVENTS;
static double START;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/// Ends the program without what else runs at an end, which would need what could not be set up.
_Noreturn static void die(const char *what, const char *why) {
    fprintf(stderr, "pretended driver: %s: %s\n", what, why);
    _exit(70);
}

static void path_of(char path[PATH_SIZE], const char *name) { snprintf(path, PATH_SIZE, "%s/%s", LOGS, name); }

static FILE *open_log(const char *name) {
    char path[PATH_SIZE];
    path_of(path, name);
    return fopen(path, "w");
}

/// Writes a line to invalid.log and returns the error that CUDA would. Call with LOCK held.
__attribute__((format(printf, 2, 3)))
static CUresult refuse(CUresult error, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(INVALID, "%.3f ", now() - START);
    vfprintf(INVALID, format, args);
    fputc('\n', INVALID);
    fflush(INVALID);
    va_end(args);
    return error;
}

/// A line of events.log: seconds, kind, two numbers, a name. Call with LOCK held.
static void event(const char *kind, Count a, Count b, const char *name) {
    if (EVENTS) fprintf(EVENTS, "%.6f %s %llu %llu %s\n", now(), kind, a, b, name);
}

// ---------------------------------------------------------------- the context of a thread

static int INITIALISED;
static __thread CUcontext CURRENT;

/// A call that no handle ties to a context is refused in a thread that has none. Call with LOCK held.
static CUresult need_context(const char *call) {
    return CURRENT ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_CONTEXT, "%s in a thread without a context", call);
}

static CUresult need_init(const char *call) {
    return INITIALISED ? CUDA_SUCCESS : refuse(CUDA_ERROR_NOT_INITIALIZED, "%s before cuInit", call);
}

// ---------------------------------------------------------------- memory

typedef struct { CUdeviceptr start; size_t size; } Block;
enum { PAGE = 4096, MAX_BLOCKS = 32768 }; // Linux maps 65530 areas by default, and a block takes two.

/// Memory of the device, or memory of the host that is pinned.
typedef struct {
    Count limit, live, peak, allocations, frees;
    const char *taken, *freed; // kinds in events.log
    Block blocks[MAX_BLOCKS];
    size_t block_count;
} Memory;
static Memory DEVICE = {.limit = 80ull << 30 /* STUB_MEMORY_MIB */, .taken = "alloc", .freed = "free"};
static Memory PINNED = {.limit = 1ull << 47, .taken = "pinned", .freed = "unpinned"};

static Block *block_of(Memory *memory, CUdeviceptr address) {
    for (Block *block = memory->blocks; block < memory->blocks + memory->block_count; block++)
        if (address >= block->start && address - block->start < block->size) return block;
    return NULL;
}

/// Whole pages and one more without access: a kernel that is run on the CPU and writes behind a block dies there.
static size_t mapped_size(size_t size) { return (size + PAGE - 1) / PAGE * PAGE + PAGE; }

static CUresult allocate(Memory *memory, size_t size, CUdeviceptr *start) {
    if (need_context("an allocation")) return CUDA_ERROR_INVALID_CONTEXT;
    if (!size) return refuse(CUDA_ERROR_INVALID_VALUE, "allocation of 0 bytes");
    if (size > memory->limit - memory->live || memory->block_count == MAX_BLOCKS)
        return refuse(CUDA_ERROR_OUT_OF_MEMORY, "out of memory: %zu asked, %llu live", size, memory->live);
    size_t mapped = mapped_size(size);
    char *at = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return refuse(CUDA_ERROR_OUT_OF_MEMORY, "out of the host's memory: %zu asked", size);
    mprotect(at + mapped - PAGE, PAGE, PROT_NONE);
    *start = (CUdeviceptr)at;
    memory->blocks[memory->block_count++] = (Block){*start, size};
    memory->allocations++;
    memory->live += size;
    if (memory->live > memory->peak) memory->peak = memory->live;
    event(memory->taken, size, memory->live, "");
    return CUDA_SUCCESS;
}

static CUresult release(Memory *memory, CUdeviceptr start) {
    Block *block = block_of(memory, start);
    if (!block || block->start != start) return refuse(CUDA_ERROR_INVALID_VALUE, "free of %llx, which is no block", start);
    munmap((void *)start, mapped_size(block->size));
    memory->live -= block->size;
    memory->frees++;
    event(memory->freed, block->size, memory->live, "");
    *block = memory->blocks[--memory->block_count];
    return CUDA_SUCCESS;
}

static CUresult check_inside(CUdeviceptr address, size_t size, const char *what) {
    Block *block = block_of(&DEVICE, address);
    if (block && size <= block->size - (address - block->start)) return CUDA_SUCCESS;
    return refuse(CUDA_ERROR_INVALID_VALUE, "%s of %zu bytes at %llx: not inside a live block", what, size, address);
}

CUresult cuMemAlloc(CUdeviceptr *address, size_t size) { lock(); return unlock(allocate(&DEVICE, size, address)); }
CUresult cuMemAllocAsync(CUdeviceptr *address, size_t size, CUstream stream) { (void)stream; return cuMemAlloc(address, size); }
CUresult cuMemFree(CUdeviceptr address) { lock(); return unlock(release(&DEVICE, address)); }
CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream) { (void)stream; return cuMemFree(address); }

CUresult cuMemAllocHost(void **address, size_t size) {
    CUdeviceptr start = 0;
    lock();
    CUresult result = allocate(&PINNED, size, &start);
    if (!result) *address = (void *)start;
    return unlock(result);
}
CUresult cuMemFreeHost(void *address) { lock(); return unlock(release(&PINNED, (CUdeviceptr)address)); }

CUresult cuMemGetInfo(size_t *left, size_t *total) {
    lock();
    *total = DEVICE.limit, *left = DEVICE.limit - DEVICE.live;
    return unlock(need_context("cuMemGetInfo"));
}

// ---------------------------------------------------------------- modules: each has one kernel, as CubeCL makes them

enum { MAX_KERNELS = 65536, MAX_PARAMETERS = 512, MAX_PARAMETER_BYTES = 32764 };
typedef struct {
    char path[PATH_SIZE]; // of its PTX, DIR/modules/NNNNN.ptx
    const char *file;     // the path's last part
    char name[1024];
    int parameters, parameter_bytes;
    char is_pointer[MAX_PARAMETERS];
    unsigned max_threads, static_shared, max_dynamic_shared, registers, spills;
    int unloaded;
    Count launches;
} Kernel;
static Kernel *KERNELS[MAX_KERNELS];
static size_t KERNEL_COUNT;

/// A declaration of PTX: `.param .u64 NAME`, `.param .align 4 .b8 NAME[112]` or `.shared .align 16 .b8 NAME[]`.
typedef struct { int is_array, bytes; } Declaration;

static int read_declaration(const char *text, Declaration *d) {
    int bits; // behind the one letter of a type
    if (sscanf(text, "%*s .align %*d .%*1[a-z]%d", &bits) != 1 && sscanf(text, "%*s .%*1[a-z]%d", &bits) != 1) return 0;
    const char *bracket = memchr(text, '[', strcspn(text, ",;\n"));
    d->is_array = bracket != NULL;
    d->bytes = bits / 8 * (bracket ? atoi(bracket + 1) : 1);
    return 1;
}

static CUresult read_parameters(Kernel *k, const char *head) {
    Declaration d;
    for (const char *at = head; (at = strstr(at, ".param ")); at++) {
        if (!read_declaration(at, &d)) return refuse(CUDA_ERROR_INVALID_PTX, "%s: parameter %d cannot be read", k->file, k->parameters);
        if (k->parameters == MAX_PARAMETERS) return refuse(CUDA_ERROR_INVALID_PTX, "%s: more than %d parameters", k->file, MAX_PARAMETERS);
        k->is_pointer[k->parameters++] = !d.is_array && d.bytes == 8; // CubeCL puts numbers into a struct
        k->parameter_bytes += d.bytes;
    }
    if (k->parameter_bytes <= MAX_PARAMETER_BYTES) return CUDA_SUCCESS;
    return refuse(CUDA_ERROR_INVALID_PTX, "%s: %d bytes of parameters", k->file, k->parameter_bytes);
}

/// What lies between `.entry` and the body: name, parameters, the largest block.
static CUresult read_head(Kernel *k, const char *head) {
    int x = MAX_THREADS, y = 1, z = 1;
    const char *bound = strstr(head, ".maxntid ");
    if (bound) sscanf(bound, ".maxntid %d, %d, %d", &x, &y, &z);
    k->max_threads = x * y * z;
    sscanf(head, ".entry %1023[^( \n]", k->name);
    return read_parameters(k, head);
}

static CUresult read_shared(Kernel *k, const char *ptx) {
    Declaration d;
    for (const char *at = ptx; (at = strstr(at, ".shared ")); at++)
        if (read_declaration(at, &d)) k->static_shared += d.bytes;
    if (k->static_shared > SHARED_DEFAULT) return refuse(CUDA_ERROR_INVALID_PTX, "%s: %u bytes of static shared memory", k->file, k->static_shared);
    k->max_dynamic_shared = SHARED_DEFAULT - k->static_shared;
    return CUDA_SUCCESS;
}

static CUresult read_ptx(Kernel *k, const char *ptx) {
    const char *entry = strstr(ptx, ".entry "), *body = entry ? strchr(entry, '{') : NULL;
    if (!body) return refuse(CUDA_ERROR_INVALID_PTX, "%s: no kernel", k->file);
    char *head = strndup(entry, body - entry);
    CUresult result = read_head(k, head);
    free(head);
    return result ? result : read_shared(k, ptx);
}

static void read_report(Kernel *k, const char *line) {
    const char *used = strstr(line, "Used "), *frame = strstr(line, "frame, ");
    if (used) sscanf(used, "Used %u registers", &k->registers);
    if (frame) sscanf(frame, "frame, %u bytes spill stores", &k->spills);
}

/// Assembles with ptxas, which is what the driver does at this point on a machine with a GPU.
static CUresult assemble(Kernel *k) {
    if (!SETTINGS.ptxas) return CUDA_SUCCESS;
    char command[3 * PATH_SIZE + 64], line[4096], report[16384] = "";
    snprintf(command, sizeof command, "'%s' -v -arch=sm_%d%s '%s' -o '%s.cubin' 2>&1", SETTINGS.ptxas, SETTINGS.capability,
             SETTINGS.capability >= 90 ? "a" : "", k->path, k->path);
    double started = now();
    FILE *pipe = popen(command, "r");
    if (!pipe) return refuse(CUDA_ERROR_OPERATING_SYSTEM, "%s: ptxas cannot be started", k->file);
    while (fgets(line, sizeof line, pipe)) {
        read_report(k, line);
        strncat(report, line, sizeof report - strlen(report) - 1);
    }
    int status = pclose(pipe);
    double took = now() - started;
    COUNTS.ptxas_seconds += took;
    event("ptxas", took * 1e6, k->registers, k->name);
    return status ? refuse(CUDA_ERROR_INVALID_PTX, "%s: ptxas refuses it: %s", k->file, report) : CUDA_SUCCESS;
}

static Kernel *new_kernel(void) {
    Kernel *k = calloc(1, sizeof *k);
    char name[32];
    snprintf(name, sizeof name, "modules/%05zu.ptx", KERNEL_COUNT);
    path_of(k->path, name);
    k->file = strrchr(k->path, '/') + 1;
    return KERNELS[KERNEL_COUNT++] = k;
}

static CUresult load(CUmodule *module, const char *ptx) {
    if (need_context("cuModuleLoadData")) return CUDA_ERROR_INVALID_CONTEXT;
    if (SETTINGS.old_driver) return refuse(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "a module: its PTX is newer than this driver");
    if (!strncmp(ptx, "\177ELF", 4)) return refuse(CUDA_ERROR_INVALID_IMAGE, "a module: a cubin, and only PTX is known here");
    if (KERNEL_COUNT == MAX_KERNELS) return refuse(CUDA_ERROR_OUT_OF_MEMORY, "more than %d modules", MAX_KERNELS);
    Kernel *k = new_kernel();
    FILE *f = fopen(k->path, "w");
    if (!f) return refuse(CUDA_ERROR_OPERATING_SYSTEM, "%s cannot be written", k->path);
    fputs(ptx, f);
    fclose(f);
    CUresult result = read_ptx(k, ptx);
    event("module", KERNEL_COUNT - 1, strlen(ptx), k->name);
    if (!result) result = assemble(k);
    if (!result) *module = (CUmodule)k;
    return result;
}
CUresult cuModuleLoadData(CUmodule *module, const void *image) { lock(); return unlock(load(module, image)); }

/// The kernel behind a module or a function, which are the same here. Call with LOCK held.
static Kernel *loaded(const void *handle) {
    Kernel *k = (Kernel *)handle;
    if (k && !k->unloaded) return k;
    refuse(CUDA_ERROR_INVALID_HANDLE, "a module or function that is not loaded");
    return NULL;
}

/// A kernel that is unloaded stays in memory, for summary.txt and for who still has its handle.
static CUresult unload(Kernel *k) {
    if (!k) return CUDA_ERROR_INVALID_HANDLE;
    k->unloaded = 1;
    return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) { lock(); return unlock(unload(loaded(module))); }

static CUresult find(CUfunction *function, Kernel *k, const char *name) {
    if (!k) return CUDA_ERROR_INVALID_HANDLE;
    if (strcmp(name, k->name)) return refuse(CUDA_ERROR_NOT_FOUND, "%s has no function %s but %s", k->file, name, k->name);
    *function = (CUfunction)k;
    return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    lock();
    return unlock(find(function, loaded(module), name));
}

static CUresult set_max_dynamic_shared(Kernel *k, CUfunction_attribute attribute, int bytes) {
    if (!k) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "not in the stub: attribute %d of a function", attribute);
    if (bytes < 0 || (unsigned)bytes > shared_limit() - k->static_shared)
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: %d + %u bytes of shared memory, more than %u", k->name, bytes, k->static_shared, shared_limit());
    k->max_dynamic_shared = bytes;
    return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    lock();
    return unlock(set_max_dynamic_shared(loaded(function), attribute, value));
}

// ---------------------------------------------------------------- launches

/// Runs a kernel on the CPU, if STUB_EXECUTE names a library that can.
typedef int (*Execute)(const char *ptx_file, const char *name, void **parameters, unsigned *grid, unsigned *block, unsigned shared);
static Execute EXECUTE;

static CUresult check_sizes(const Kernel *k, const unsigned *grid, const unsigned *block) {
    if (!grid[0] || !grid[1] || !grid[2] || !block[0] || !block[1] || !block[2])
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: a grid of %u %u %u blocks of %u %u %u", k->name, grid[0], grid[1], grid[2], block[0],
                      block[1], block[2]);
    if (grid[0] > MAX_GRID_X || grid[1] > MAX_GRID_YZ || grid[2] > MAX_GRID_YZ)
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: a grid of %u %u %u", k->name, grid[0], grid[1], grid[2]);
    if (block[0] > MAX_THREADS || block[1] > MAX_THREADS || block[2] > MAX_BLOCK_Z || block[0] * block[1] * block[2] > MAX_THREADS)
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: blocks of %u %u %u", k->name, block[0], block[1], block[2]);
    return CUDA_SUCCESS;
}

static CUresult check_resources(const Kernel *k, unsigned threads, unsigned shared) {
    if (shared > k->max_dynamic_shared)
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: %u bytes of dynamic shared memory, %u allowed", k->name, shared, k->max_dynamic_shared);
    if (threads > k->max_threads) return refuse(CUDA_ERROR_INVALID_VALUE, "%s: %u threads, %u allowed", k->name, threads, k->max_threads);
    unsigned warps = (threads + 31) / 32, registers_of_warp = (k->registers + 7) / 8 * 8 * 32;
    if (warps * registers_of_warp > REGISTERS)
        return refuse(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "%s: %u threads of %u registers", k->name, threads, k->registers);
    return CUDA_SUCCESS;
}

/// A kernel must not be given memory that is not there. CUDA says so at the next wait; here the launch is refused. An empty
/// tensor may begin at the end of its block.
static CUresult check_pointer(const Kernel *k, int i, CUdeviceptr address) {
    if (block_of(&DEVICE, address) || block_of(&DEVICE, address - 1)) return CUDA_SUCCESS;
    return refuse(CUDA_ERROR_ILLEGAL_ADDRESS, "%s: parameter %d of %d is %llx, not inside a live block", k->name, i, k->parameters, address);
}

static CUresult check_parameters(const Kernel *k, void **parameters) {
    CUresult result = CUDA_SUCCESS;
    for (int i = 0; i < k->parameters && !result; i++)
        if (!parameters || !parameters[i]) result = refuse(CUDA_ERROR_INVALID_VALUE, "%s: parameter %d is missing", k->name, i);
        else if (k->is_pointer[i]) result = check_pointer(k, i, *(CUdeviceptr *)parameters[i]);
    return result;
}

static CUresult launch(Kernel *k, unsigned *grid, unsigned *block, unsigned shared, void **parameters) {
    if (!k) return CUDA_ERROR_INVALID_HANDLE;
    unsigned threads = block[0] * block[1] * block[2];
    CUresult result = check_sizes(k, grid, block);
    if (!result) result = check_resources(k, threads, shared);
    if (!result) result = check_parameters(k, parameters);
    if (result) return result;
    event("launch", (Count)grid[0] * grid[1] * grid[2], threads, k->name);
    COUNTS.launches++;
    k->launches++;
    if (SETTINGS.launch) usleep(SETTINGS.launch);
    int failed = EXECUTE ? EXECUTE(k->path, k->name, parameters, grid, block, shared) : 0;
    return failed ? refuse(CUDA_ERROR_LAUNCH_FAILED, "%s: could not be run on the CPU (%d)", k->name, failed) : CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                        unsigned block_z, unsigned shared, CUstream stream, void **parameters, void **extra) {
    (void)stream;
    lock();
    if (extra) return unlock(refuse(CUDA_ERROR_NOT_SUPPORTED, "not in the stub: launches with `extra`"));
    unsigned grid[] = {grid_x, grid_y, grid_z}, block[] = {block_x, block_y, block_z};
    return unlock(launch(loaded(function), grid, block, shared, parameters));
}

// ---------------------------------------------------------------- tensor maps (the descriptors of bulk copies)

/// As in emulator/emulator.hpp. The first stride is that of the second dimension, at index 1.
typedef struct {
    uint64_t address, dims[5], strides[5];
    uint32_t box[5], element_strides[5], rank, type, interleave, swizzle, fill;
} Map;

/// A descriptor holds a mark and a place in this ring, whose oldest maps are forgotten.
enum { MAP_MARK = 0x7473eb00, MAX_MAPS = 65536 };
static Map MAPS[MAX_MAPS];
static uint32_t MAP_COUNT;

/// The emulator asks for what a descriptor stands for.
static const void *map_at(uint32_t index) { return index < MAX_MAPS && MAPS[index].rank ? &MAPS[index] : NULL; }

static CUresult refuse_map(const Map *m, const char *why) {
    return refuse(CUDA_ERROR_INVALID_VALUE, "tensor map: type %u rank %u at %p dims %lu %lu %lu strides %lu %lu box %u %u %u swizzle %u: %s",
                  m->type, m->rank, (void *)m->address, m->dims[0], m->dims[1], m->dims[2], m->strides[1], m->strides[2], m->box[0],
                  m->box[1], m->box[2], m->swizzle, why);
}

static unsigned type_bytes(uint32_t type) {
    switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8: return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16: case CU_TENSOR_MAP_DATA_TYPE_FLOAT16: case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64: case CU_TENSOR_MAP_DATA_TYPE_INT64: case CU_TENSOR_MAP_DATA_TYPE_FLOAT64: return 8;
    default: return 4;
    }
}

static unsigned widest_box(uint32_t swizzle) {
    switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_NONE: return UINT_MAX;
    case CU_TENSOR_MAP_SWIZZLE_32B: return 32;
    case CU_TENSOR_MAP_SWIZZLE_64B: return 64;
    default: return 128;
    }
}

/// What the documentation demands of every map: `box[0]` is the box's inner side, or the channels of an im2col map.
static CUresult check_map(const Map *m, const void *descriptor) {
    unsigned inner = m->box[0] * type_bytes(m->type);
    if ((uintptr_t)descriptor % 64) return refuse_map(m, "the descriptor must be aligned to 64 bytes");
    if (m->address % 16) return refuse_map(m, "the tensor must be aligned to 16 bytes");
    for (unsigned i = 0; i < m->rank; i++) {
        if (!m->dims[i] || m->dims[i] > 1ull << 32) return refuse_map(m, "a dimension");
        if (!m->element_strides[i] || m->element_strides[i] > 8) return refuse_map(m, "an element stride");
        if (m->strides[i] % 16 || m->strides[i] >= 1ull << 40) return refuse_map(m, "a stride must be a multiple of 16 below 2^40");
    }
    if (!inner || inner % 16) return refuse_map(m, "the inner side of the box must be a multiple of 16 bytes");
    if (inner > widest_box(m->swizzle)) return refuse_map(m, "the inner side of the box is wider than the swizzle");
    return check_inside(m->address, 1, "tensor map");
}

static CUresult read_map(Map *m, CUtensorMapDataType type, unsigned rank, void *address, const cuuint64_t *dims, const cuuint64_t *strides,
                         const cuuint32_t *element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle) {
    *m = (Map){.address = (uint64_t)address, .rank = rank, .type = type, .interleave = interleave, .swizzle = swizzle};
    if (SETTINGS.capability < 90) return refuse(CUDA_ERROR_NOT_SUPPORTED, "tensor maps need compute capability 9.0");
    if (interleave || type > CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "not in the stub: tensor maps of interleaved or packed numbers");
    if (rank < 1 || rank > 5) return refuse_map(m, "rank");
    for (unsigned i = 0; i < rank; i++) {
        m->dims[i] = dims[i], m->element_strides[i] = element_strides[i];
        if (i) m->strides[i] = strides[i - 1];
    }
    return CUDA_SUCCESS;
}

static CUresult encode_tiled(void *descriptor, Map *m, const cuuint32_t *box) {
    for (unsigned i = 0; i < m->rank; i++) m->box[i] = box[i];
    for (unsigned i = 0; i < m->rank; i++)
        if (!box[i] || box[i] > 256) return refuse_map(m, "a side of the box");
    CUresult result = check_map(m, descriptor);
    if (result) return result;
    event("map", m->rank, m->box[0] * type_bytes(m->type), "");
    uint32_t index = MAP_COUNT++ % MAX_MAPS, words[] = {MAP_MARK, index};
    MAPS[index] = *m;
    memset(descriptor, 0, sizeof(CUtensorMap));
    memcpy(descriptor, words, sizeof words);
    return CUDA_SUCCESS;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap *descriptor, CUtensorMapDataType type, cuuint32_t rank, void *address, const cuuint64_t *dims,
                                const cuuint64_t *strides, const cuuint32_t *box, const cuuint32_t *element_strides,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                CUtensorMapFloatOOBfill fill) {
    (void)promotion;
    Map m;
    lock();
    CUresult result = read_map(&m, type, rank, address, dims, strides, element_strides, interleave, swizzle);
    m.fill = fill;
    return unlock(result ? result : encode_tiled(descriptor, &m, box));
}

/// Maps for convolutions are checked, and their descriptors are empty: the emulator does not know them.
static CUresult encode_im2col(void *descriptor, Map *m, unsigned channels, unsigned pixels) {
    m->box[0] = channels, m->box[1] = pixels;
    if (m->rank < 3) return refuse_map(m, "im2col needs a rank of 3");
    if (channels > 256 || pixels > 1024) return refuse_map(m, "channels or pixels");
    CUresult result = check_map(m, descriptor);
    if (result) return result;
    if (EXECUTE) return refuse(CUDA_ERROR_NOT_SUPPORTED, "not in the emulator: im2col maps");
    event("map-im2col", m->rank, m->box[0] * type_bytes(m->type), "");
    memset(descriptor, 0, sizeof(CUtensorMap));
    return CUDA_SUCCESS;
}

CUresult cuTensorMapEncodeIm2col(CUtensorMap *descriptor, CUtensorMapDataType type, cuuint32_t rank, void *address, const cuuint64_t *dims,
                                 const cuuint64_t *strides, const int *lower, const int *upper, cuuint32_t channels, cuuint32_t pixels,
                                 const cuuint32_t *element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                 CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
    (void)lower, (void)upper, (void)promotion, (void)fill;
    Map m;
    lock();
    CUresult result = read_map(&m, type, rank, address, dims, strides, element_strides, interleave, swizzle);
    return unlock(result ? result : encode_im2col(descriptor, &m, channels, pixels));
}

// ---------------------------------------------------------------- copies

/// Copies of one direction, as they are counted.
typedef struct { const char *kind; Count count, bytes; } Copies; // the kind is that of events.log
static Copies TO_DEVICE = {.kind = "h2d"}, TO_HOST = {.kind = "d2h"}, ON_DEVICE = {.kind = "d2d"};

/// Where a copy reads or writes: rows that begin `pitch` bytes apart.
typedef struct { char *start; size_t pitch; int on_device; } Side;
static Side on_device(CUdeviceptr start, size_t pitch) { return (Side){(char *)start, pitch, 1}; }
static Side on_host(const void *start, size_t pitch) { return (Side){(char *)start, pitch, 0}; }

/// Numbers between -1 and 1.
static void fill_with_noise(char *to, size_t bytes) {
    static uint64_t state = 88172645463325252ull;
    for (; bytes >= sizeof(float); bytes -= sizeof(float), to += sizeof(float)) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        float value = (float)(state >> 40) / (1 << 23) - 1;
        memcpy(to, &value, sizeof value);
    }
}

/// Where nothing is computed everything read is 0, and a program that trains on rewards never trains: reads of some sizes may
/// be noise instead.
static int is_noise(size_t bytes) {
    for (int i = 0; i < SETTINGS.noise_count; i++)
        if (SETTINGS.noise[i] == bytes) return !EXECUTE;
    return 0;
}

static CUresult check_side(Side side, size_t width, size_t height, const char *what) {
    size_t span;
    if (!side.on_device) return CUDA_SUCCESS;
    if (__builtin_mul_overflow(side.pitch, height - 1, &span) || __builtin_add_overflow(span, width, &span)) span = SIZE_MAX;
    return check_inside((CUdeviceptr)side.start, span, what);
}

/// Every copy: `height` rows of `width` bytes. `shape` is how events.log names a copy of more than a row.
static CUresult copy(Side to, Side from, size_t width, size_t height, const char *shape) {
    if (!width || !height) return CUDA_SUCCESS;
    CUresult result = check_side(from, width, height, "copy from the device");
    if (!result) result = check_side(to, width, height, "copy to the device");
    if (result) return result;
    size_t bytes = width * height;
    int noise = !to.on_device && is_noise(bytes);
    for (size_t row = 0; row < height; row++) {
        memmove(to.start + row * to.pitch, from.start + row * from.pitch, width);
        if (noise) fill_with_noise(to.start + row * to.pitch, width);
    }
    Copies *copies = !to.on_device ? &TO_HOST : from.on_device ? &ON_DEVICE : &TO_DEVICE;
    copies->count++, copies->bytes += bytes;
    event(copies->kind, bytes, *shape ? height : 0, shape);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    (void)stream;
    lock();
    return unlock(copy(on_device(to, size), on_host(from, size), size, 1, ""));
}
CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    (void)stream;
    lock();
    return unlock(copy(on_host(to, size), on_device(from, size), size, 1, ""));
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    (void)stream;
    lock();
    return unlock(copy(on_device(to, size), on_device(from, size), size, 1, ""));
}

/// Whether a copy is on the device, or between it and the host.
static int is_known(CUmemorytype to, CUmemorytype from) {
    if (to == CU_MEMORYTYPE_DEVICE) return from == CU_MEMORYTYPE_DEVICE || from == CU_MEMORYTYPE_HOST;
    return to == CU_MEMORYTYPE_HOST && from == CU_MEMORYTYPE_DEVICE;
}

/// Without a pitch, rows follow each other.
static CUresult copy_2d(const CUDA_MEMCPY2D *c) {
    size_t width = c->WidthInBytes, to_pitch = c->dstPitch ? c->dstPitch : width, from_pitch = c->srcPitch ? c->srcPitch : width;
    if (to_pitch < width || from_pitch < width || c->dstPitch > MAX_PITCH || c->srcPitch > MAX_PITCH)
        return refuse(CUDA_ERROR_INVALID_VALUE, "2D copy of %zu x %zu bytes with pitches %zu and %zu", width, c->Height, c->srcPitch, c->dstPitch);
    if (!is_known(c->dstMemoryType, c->srcMemoryType))
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "not in the stub: 2D copies from memory of type %d to %d", c->srcMemoryType, c->dstMemoryType);
    if (c->srcXInBytes || c->srcY || c->dstXInBytes || c->dstY) return refuse(CUDA_ERROR_NOT_SUPPORTED, "not in the stub: 2D copies with offsets");
    Side to = c->dstMemoryType == CU_MEMORYTYPE_DEVICE ? on_device(c->dstDevice, to_pitch) : on_host(c->dstHost, to_pitch);
    Side from = c->srcMemoryType == CU_MEMORYTYPE_DEVICE ? on_device(c->srcDevice, from_pitch) : on_host(c->srcHost, from_pitch);
    return copy(to, from, width, c->Height, to_pitch == width && from_pitch == width ? "2d" : "2d-pitched");
}
CUresult cuMemcpy2DAsync(const CUDA_MEMCPY2D *c, CUstream stream) { (void)stream; lock(); return unlock(copy_2d(c)); }

static CUresult fill(CUdeviceptr to, unsigned char value, size_t size) {
    if (!size) return CUDA_SUCCESS;
    CUresult result = check_inside(to, size, "memset");
    if (!result) memset((void *)to, value, size);
    return result;
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream) {
    (void)stream;
    lock();
    return unlock(fill(to, value, size));
}

// ---------------------------------------------------------------- streams and events: all work is done when a call returns

static CUresult make_handle(void **handle, const char *call, const char *kind) {
    static uintptr_t last = 0x5000;
    CUresult result = need_context(call);
    if (result) return result;
    *handle = (void *)(last += 16);
    event(kind, last, 0, "");
    return CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    (void)flags;
    lock();
    return unlock(make_handle((void **)stream, "cuStreamCreate", "stream"));
}
CUresult cuEventCreate(CUevent *made, unsigned flags) {
    (void)flags;
    lock();
    return unlock(make_handle((void **)made, "cuEventCreate", "event"));
}
CUresult cuEventDestroy(CUevent made) { (void)made; return CUDA_SUCCESS; }

static CUresult counted(Count *count, const char *kind, const void *handle, const char *name) {
    lock();
    ++*count;
    event(kind, (uintptr_t)handle, 0, name);
    return unlock(CUDA_SUCCESS);
}
CUresult cuStreamSynchronize(CUstream stream) { (void)stream; return counted(&COUNTS.syncs, "sync", NULL, "stream"); }
CUresult cuCtxSynchronize(void) { return counted(&COUNTS.syncs, "sync", NULL, "context"); }
CUresult cuEventSynchronize(CUevent made) { (void)made; return counted(&COUNTS.event_syncs, "sync", NULL, "event"); }
CUresult cuEventRecord(CUevent made, CUstream stream) { (void)stream; return counted(&COUNTS.events, "record", made, ""); }
CUresult cuStreamWaitEvent(CUstream stream, CUevent made, unsigned flags) {
    (void)made, (void)flags;
    return counted(&COUNTS.stream_waits, "streamwait", stream, "");
}

// ---------------------------------------------------------------- device and context

#define CONTEXT ((CUcontext)0x1000)

static CUresult initialise(unsigned flags) {
    if (flags) return refuse(CUDA_ERROR_INVALID_VALUE, "cuInit with flags %u", flags);
    if (SETTINGS.no_device) return refuse(CUDA_ERROR_NO_DEVICE, "cuInit: there is no device");
    INITIALISED = 1;
    return CUDA_SUCCESS;
}
CUresult cuInit(unsigned flags) { lock(); return unlock(initialise(flags)); }
CUresult cuDriverGetVersion(int *version) { *version = SETTINGS.old_driver ? 12000 : 13000; return CUDA_SUCCESS; }

CUresult cuDeviceGetCount(int *count) {
    lock();
    *count = 1;
    return unlock(need_init("cuDeviceGetCount"));
}

static CUresult check_device(CUdevice device, const char *call) {
    lock();
    CUresult result = need_init(call);
    if (!result && device) result = refuse(CUDA_ERROR_INVALID_DEVICE, "%s of device %d", call, device);
    return unlock(result);
}
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = ordinal; return check_device(ordinal, "cuDeviceGet"); }
CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    snprintf(name, length, "NVIDIA H100 80GB HBM3 (stub)");
    return check_device(device, "cuDeviceGetName");
}
CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) { *bytes = DEVICE.limit; return check_device(device, "cuDeviceTotalMem"); }

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = CONTEXT;
    return check_device(device, "cuDevicePrimaryCtxRetain");
}
CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return check_device(device, "cuDevicePrimaryCtxRelease"); }
CUresult cuCtxGetCurrent(CUcontext *context) { *context = CURRENT; return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) {
    lock();
    if (context && context != CONTEXT) return unlock(refuse(CUDA_ERROR_INVALID_CONTEXT, "cuCtxSetCurrent to %p", (void *)context));
    CURRENT = context;
    return unlock(CUDA_SUCCESS);
}

static CUresult attribute_of_device(int *value, CUdevice_attribute attribute) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = SETTINGS.capability / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = SETTINGS.capability % 10; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = SHARED_DEFAULT; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = shared_limit(); break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = MAX_THREADS; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X: case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: *value = MAX_THREADS; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: *value = MAX_BLOCK_Z; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: *value = MAX_GRID_X; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y: case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: *value = MAX_GRID_YZ; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = REGISTERS; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_MAX_PITCH: *value = MAX_PITCH; break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
    default: *value = 0; return refuse(CUDA_ERROR_NOT_SUPPORTED, "not in the stub: attribute %d of a device", attribute);
    }
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    CUresult result = check_device(device, "cuDeviceGetAttribute");
    if (result) return result;
    lock();
    return unlock(attribute_of_device(value, attribute));
}

// ---------------------------------------------------------------- errors

/// NVIDIA's words for the errors that this driver gives.
static const char *words_of(CUresult error) {
    switch (error) {
    case CUDA_SUCCESS: return "no error";
    case CUDA_ERROR_INVALID_VALUE: return "invalid argument";
    case CUDA_ERROR_OUT_OF_MEMORY: return "out of memory";
    case CUDA_ERROR_NOT_INITIALIZED: return "initialization error";
    case CUDA_ERROR_NO_DEVICE: return "no CUDA-capable device is detected";
    case CUDA_ERROR_INVALID_DEVICE: return "invalid device ordinal";
    case CUDA_ERROR_INVALID_IMAGE: return "device kernel image is invalid";
    case CUDA_ERROR_INVALID_CONTEXT: return "invalid device context";
    case CUDA_ERROR_INVALID_PTX: return "a PTX JIT compilation failed";
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION: return "the provided PTX was compiled with an unsupported toolchain.";
    case CUDA_ERROR_OPERATING_SYSTEM: return "OS call failed or operation not supported on this OS";
    case CUDA_ERROR_INVALID_HANDLE: return "invalid resource handle";
    case CUDA_ERROR_NOT_FOUND: return "named symbol not found";
    case CUDA_ERROR_ILLEGAL_ADDRESS: return "an illegal memory access was encountered";
    case CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: return "too many resources requested for launch";
    case CUDA_ERROR_LAUNCH_FAILED: return "unspecified launch failure";
    case CUDA_ERROR_NOT_SUPPORTED: return "operation not supported";
    default: return NULL;
    }
}
CUresult cuGetErrorString(CUresult error, const char **words) {
    *words = words_of(error);
    return *words ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// ---------------------------------------------------------------- everything else

static CUresult missing(const char *name) {
    lock();
    return unlock(refuse(CUDA_ERROR_NOT_SUPPORTED, "not in the stub: %s", name));
}
// A function for each name that unimplemented.py lists. cuda.h declares them with arguments, so they have a C name of their own.
#define X(name) CUresult missing_##name(void) __asm__(#name); CUresult missing_##name(void) { return missing(#name); }
#include "unimplemented.inc"
#undef X

// ---------------------------------------------------------------- start and end

/// A setting of the environment, or NULL where it is missing, empty or 0.
static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value && *value && strcmp(value, "0") ? value : NULL;
}

static void read_settings(void) {
    const char *memory = setting("STUB_MEMORY_MIB"), *capability = setting("STUB_SM");
    const char *ptxas = setting("STUB_PTXAS"), *noise = setting("STUB_NOISE"), *launch = setting("STUB_LAUNCH_US");
    if (memory) DEVICE.limit = strtoull(memory, NULL, 10) << 20;
    if (capability) SETTINGS.capability = atoi(capability);
    if (ptxas) SETTINGS.ptxas = strdup(ptxas); // the environment may change
    if (launch) SETTINGS.launch = atoi(launch);
    SETTINGS.no_device = setting("STUB_NO_DEVICE") != NULL;
    SETTINGS.old_driver = setting("STUB_OLD_DRIVER") != NULL;
    for (char *end; noise && *noise && SETTINGS.noise_count < MAX_NOISE; noise = *end == ',' ? end + 1 : end) {
        SETTINGS.noise[SETTINGS.noise_count++] = strtoull(noise, &end, 10);
        if (end == noise) die("STUB_NOISE", "numbers of bytes with commas between them");
    }
}

static void open_logs(void) {
    const char *directory = setting("STUB_DIR");
    if (!directory) directory = "pretended-gpu";
    mkdir(directory, 0777);
    if (!realpath(directory, LOGS)) die(directory, "cannot be made");
    char modules[PATH_SIZE];
    path_of(modules, "modules");
    mkdir(modules, 0777);
    INVALID = open_log("invalid.log");
    if (setting("STUB_EVENTS")) EVENTS = open_log("events.log");
    if (!INVALID || (setting("STUB_EVENTS") && !EVENTS)) die(LOGS, "cannot be written");
}

/// The kernels that the emulator builds are libraries which need its names: RTLD_GLOBAL.
static void load_emulator(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library) die(path, dlerror());
    EXECUTE = (Execute)dlsym(library, "stub_execute");
    const void *(**lookup)(uint32_t) = dlsym(library, "emu_lookup");
    if (!EXECUTE || !lookup) die(path, "no emulator");
    *lookup = map_at;
}

__attribute__((constructor)) static void start(void) {
    START = now();
    open_logs();
    read_settings();
    if (setting("STUB_EXECUTE")) load_emulator(setting("STUB_EXECUTE"));
}

static void write_summary(FILE *f) {
    fprintf(f, "launches %llu of %zu kernels (modules %zu, ptxas %.1f s)\n", COUNTS.launches, KERNEL_COUNT, KERNEL_COUNT, COUNTS.ptxas_seconds);
    fprintf(f, "host to device %llu copies %llu bytes\n", TO_DEVICE.count, TO_DEVICE.bytes);
    fprintf(f, "device to host %llu copies %llu bytes\n", TO_HOST.count, TO_HOST.bytes);
    fprintf(f, "device to device %llu copies %llu bytes\n", ON_DEVICE.count, ON_DEVICE.bytes);
    fprintf(f, "waits: %llu for events, %llu for streams or the context; %llu events recorded, %llu waits between streams\n",
            COUNTS.event_syncs, COUNTS.syncs, COUNTS.events, COUNTS.stream_waits);
    fprintf(f, "device memory: %llu allocations, %llu frees, peak %llu bytes; pinned: %llu allocations, peak %llu bytes\n",
            DEVICE.allocations, DEVICE.frees, DEVICE.peak, PINNED.allocations, PINNED.peak);
    fprintf(f, "%8s %5s %6s %6s %6s %s\n", "launches", "regs", "spill", "static", "params", "kernel");
    for (size_t i = 0; i < KERNEL_COUNT; i++) {
        const Kernel *k = KERNELS[i];
        fprintf(f, "%8llu %5u %6u %6u %6d %s %s\n", k->launches, k->registers, k->spills, k->static_shared, k->parameter_bytes, k->file, k->name);
    }
}

__attribute__((destructor)) static void end(void) {
    FILE *f = open_log("summary.txt"); // none if the directory is gone by now
    lock();
    if (f) write_summary(f), fclose(f);
    if (EVENTS) fflush(EVENTS);
    unlock(CUDA_SUCCESS);
}
