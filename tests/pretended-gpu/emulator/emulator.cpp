// Runs the blocks of a launch: threads are coroutines with stacks of their own, and one that waits hands over to the next.
#include "emulator.hpp"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <dlfcn.h>
#include <map>
#include <string>
#include <vector>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

extern "C" const void *(*emu_lookup)(uint32_t);
const void *(*emu_lookup)(uint32_t) = nullptr;

namespace emu {
Thread *self;
Warp *warps;
uint3 block_index;
dim3 block_dim, grid_dim;
unsigned char *shared;
bool coroutines;
static Thread threads[1024];
static Warp warp_store[32];
static int count, live, arrived;
static unsigned generation;
static void *main_sp;
static long yields_without_progress;
static bool stuck;
static const char *kernel_name = "";
static void (*body)(void **);
static void **arguments;
static std::map<std::string, int> complaints;

extern "C" void emu_switch(void **save, void *load);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

void complain(const char *what) {
    std::string key = std::string(kernel_name) + ": " + what;
    if (complaints[key]++ == 0) fprintf(stderr, "emu: %s\n", key.c_str());
}
void progress() { yields_without_progress = 0; }

static void hand_over() {
    Thread *from = self;
    int i = (int)(from - threads);
    for (int n = 0; n < count; n++) {
        i = i + 1 == count ? 0 : i + 1;
        if (!threads[i].done) {
            self = &threads[i];
            if (self != from) emu_switch(&from->sp, self->sp);
            return;
        }
    }
    emu_switch(&from->sp, main_sp); // all are done
}
void yield() {
    if (!coroutines) { complain("a wait in a kernel that was thought to have none"); abort(); }
    if (++yields_without_progress > 8L * count + 64) {
        stuck = true;
        emu_switch(&self->sp, main_sp);
    }
    hand_over();
}
void sync_block() {
    unsigned mine = generation;
    progress();
    if (++arrived == live) { arrived = 0; generation++; return; }
    while (generation == mine) yield();
}
void sync_warp() {
    Warp &warp = warps[self->warp];
    unsigned mine = warp.generation;
    progress();
    if (++warp.arrived == warp.live) { warp.arrived = 0; warp.generation++; return; }
    while (warp.generation == mine) yield();
}
static void thread_main() {
    body(arguments);
    self->done = true;
    progress();
    Warp &warp = warps[self->warp];
    live--, warp.live--;
    if (arrived && arrived == live) { arrived = 0; generation++; }
    if (warp.arrived && warp.arrived == warp.live) { warp.arrived = 0; warp.generation++; }
    hand_over();
    abort();
}

const Map *map_of(const void *descriptor) {
    const uint32_t *words = (const uint32_t *)descriptor;
    const Map *map = words[0] == 0x7473eb00 && emu_lookup ? (const Map *)emu_lookup(words[1]) : nullptr;
    if (!map) { complain("a tensor map that nobody made"); abort(); }
    return map;
}

/// A box of a tensor into shared memory, zeros beyond its ends, swizzled by address as the hardware does.
void bulk_load(void *to, const void *descriptor, const int *at, int rank) {
    const Map *m = map_of(descriptor);
    if ((int)m->rank != rank) complain("a bulk copy of another rank than its tensor map");
    if ((uintptr_t)to % 128) complain("a bulk copy to shared memory that is not aligned to 128 bytes");
    unsigned size = m->type == 0 ? 1 : m->type == 1 || m->type == 6 || m->type == 9 ? 2 : m->type == 4 || m->type == 5 || m->type == 8 ? 8 : 4;
    unsigned total = 1;
    for (int i = 0; i < rank; i++) total *= m->box[i];
    for (unsigned n = 0; n < total; n++) {
        unsigned rest = n;
        uint64_t address = m->address;
        bool inside = true;
        for (int i = 0; i < rank; i++) {
            int64_t c = at[i] + (int64_t)(rest % m->box[i]) * m->element_strides[i];
            rest /= m->box[i];
            if (c < 0 || c >= (int64_t)m->dims[i]) inside = false;
            address += (uint64_t)c * (i ? m->strides[i] : size);
        }
        uint64_t offset = (uint64_t)to + (uint64_t)n * size;
        switch (m->swizzle) {
        case 1: offset ^= (offset >> 7 & 1) << 4; break;
        case 2: offset ^= (offset >> 7 & 3) << 4; break;
        case 3: offset ^= (offset >> 7 & 7) << 4; break;
        case 0: break;
        default: complain("a swizzle that the emulator does not know");
        }
        if (!inside) memset((void *)offset, 0, size);
        else if (m->type == 11 || m->type == 12) { float f; memcpy(&f, (void *)address, 4); f = nvcuda::wmma::__float_to_tf32(f); memcpy((void *)offset, &f, 4); }
        else memcpy((void *)offset, (void *)address, size);
    }
}
} // namespace emu

// ---------------------------------------------------------------- from a PTX file to a function

using namespace emu;
typedef void (*Body)(void **);
struct Built { Body body; bool waits; };
static std::map<std::string, Built> built;
static const char *HERE = getenv("EMU_HOME") ? getenv("EMU_HOME") : "emu";

static std::string contents(const std::string &path) {
    std::string text;
    FILE *f = fopen(path.c_str(), "r");
    if (!f) return text;
    char buffer[65536];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, f));) text.append(buffer, n);
    fclose(f);
    return text;
}

/// DIR/modules/NNNNN.ptx was compiled from the DIR/sources/MMMMM.cu whose PTX is the same; usually the numbers are the same too.
static std::string source_of(const std::string &ptx_file) {
    size_t slash = ptx_file.rfind("/modules/");
    std::string directory = ptx_file.substr(0, slash) + "/sources/", name = ptx_file.substr(slash + 9, 5), ptx = contents(ptx_file);
    if (contents(directory + name + ".ptx") == ptx) return directory + name + ".cu";
    for (int i = 0; i < 65536; i++) {
        char other[16];
        snprintf(other, sizeof other, "%05d", i);
        std::string text = contents(directory + other + ".ptx");
        if (text == ptx) return directory + other + ".cu";
        if (text.empty() && access((directory + other + ".cu").c_str(), F_OK)) break;
    }
    return "";
}

static const int POISON = getenv("EMU_POISON") ? atoi(getenv("EMU_POISON")) : 0xff;
static double SECONDS_BUILD, SECONDS_RUN;
static std::map<std::string, double> by_kernel;
static double now() { timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
struct AtEnd { ~AtEnd() { fprintf(stderr, "emu: %zu kernels built in %.1f s, run for %.1f s\n", built.size(), SECONDS_BUILD, SECONDS_RUN); } };

static Built build(const std::string &ptx_file) {
    double started = now();
    std::string source = source_of(ptx_file), command = std::string("LD_LIBRARY_PATH= python3 ") + HERE + "/translate.py " + source;
    FILE *pipe = popen(command.c_str(), "r"); // prints the path of the library and whether threads wait
    char path[4096] = "", waits[16] = "";
    if (!pipe || fscanf(pipe, "%4095s %15s", path, waits) != 2) { fprintf(stderr, "emu: %s could not be built\n", source.c_str()); }
    if (pipe) pclose(pipe);
    Built b = {nullptr, waits[0] == 'w'};
    void *library = path[0] ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (library) b.body = (Body)dlsym(library, "emu_entry");
    else if (path[0]) fprintf(stderr, "emu: %s\n", dlerror());
    SECONDS_BUILD += now() - started;
    return b;
}

/// EMU_TRACE=FILE: after every launch the numbers that its buffers begin with, and how many of their first 4096 are not finite.
static void trace(const char *ptx_file, const char *name, void **params) {
    static FILE *f = getenv("EMU_TRACE") ? fopen(getenv("EMU_TRACE"), "w") : nullptr;
    if (!f) return;
    fprintf(f, "%.9s %s grid %u %u %u block %u %u %u\n", strrchr(ptx_file, '/') + 1, name, grid_dim.x, grid_dim.y, grid_dim.z, block_dim.x, block_dim.y, block_dim.z);
    std::string source = contents(source_of(ptx_file));
    size_t at = source.find(std::string(name) + " (");
    size_t end = source.find(')', at), i = 0;
    // Only what is a float buffer by its declaration.
    for (size_t from = source.find('(', at) + 1; from < end; i++) {
        size_t to = source.find(',', from);
        if (to > end) to = end;
        std::string p = source.substr(from, to - from);
        from = to + 1;
        if (p.find("float") == std::string::npos || p.find('*') == std::string::npos) continue;
        float values[1024] = {}, *buffer = *(float **)params[i];
        iovec here = {values, sizeof values}, there = {buffer, sizeof values};
        if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) < 0) there.iov_len = 2048, process_vm_readv(getpid(), &here, 1, &there, 1, 0);
        int bad = 0;
        for (int n = 0; n < 1024; n++) bad += !(values[n] - values[n] == 0);
        fprintf(f, "  %p %s: %g %g %g %g %g %g %g %g; bad %d\n", (void *)buffer, p.c_str() + (p[0] == '\n'), values[0], values[1], values[2], values[3], values[4], values[5], values[6], values[7], bad);
    }
    fflush(f);
}

/// EMU_DUMP=DIR: the first megabyte of every pointer parameter of matrix products without dynamic metadata, after each first launch.
static void dump(const char *ptx_file, const char *name, void **params) {
    static const char *directory = getenv("EMU_DUMP");
    static std::map<std::string, int> done;
    if (!directory || strncmp(name, "matmul", 6) || done[ptx_file]++) return;
    std::string source = contents(source_of(ptx_file));
    if (source.find("dynamic_meta,") != std::string::npos) return;
    for (int i = 0; i < 3; i++) {
        std::string text(1 << 20, 0);
        iovec here = {text.data(), text.size()}, there = {*(void **)params[i], text.size()};
        while (process_vm_readv(getpid(), &here, 1, &there, 1, 0) < 0 && there.iov_len > 4096) there.iov_len /= 2;
        std::string path = std::string(directory) + "/" + (strrchr(ptx_file, '/') + 1) + "." + std::to_string(i);
        FILE *f = fopen(path.c_str(), "w");
        if (f) { fwrite(text.data(), 1, there.iov_len, f); fclose(f); }
    }
}

/// EMU_COMPARE=1: autotune runs many matrix products on the same numbers; those whose results begin differently are named.
static void compare(const char *ptx_file, const char *name, void **params) {
    static bool on = getenv("EMU_COMPARE");
    if (!on || strncmp(name, "matmul", 6)) return;
    struct Seen { float values[16]; std::string file; double norm; };
    static std::map<std::string, Seen> seen;
    static std::map<std::string, std::vector<int>> floats_of;
    auto &floats = floats_of[ptx_file];
    if (floats.empty()) {
        std::string source = contents(source_of(ptx_file));
        size_t at = source.find(std::string(name) + " ("), end = source.find(')', at);
        int i = 0;
        for (size_t from = source.find('(', at) + 1; from < end; i++) {
            size_t to = source.find(',', from);
            if (to > end) to = end;
            std::string p = source.substr(from, to - from);
            from = to + 1;
            if ((p.find("float") != std::string::npos) && p.find('*') != std::string::npos) floats.push_back(i);
        }
    }
    if (floats.size() < 3 || source_of(ptx_file).empty()) return;
    std::string key;
    std::string text = contents(source_of(ptx_file));
    bool b16 = text.find("__nv_bfloat16") != std::string::npos;
    for (size_t n = 0; n + 1 < floats.size(); n++) {
        char buffer[2048] = {};
        iovec here = {buffer, sizeof buffer}, there = {*(void **)params[floats[n]], sizeof buffer};
        process_vm_readv(getpid(), &here, 1, &there, 1, 0);
        key.append(buffer, n < 2 ? sizeof buffer : 64);
    }
    Seen now_ = {};
    iovec here = {now_.values, sizeof now_.values}, there = {*(void **)params[floats.back()], sizeof now_.values};
    process_vm_readv(getpid(), &here, 1, &there, 1, 0);
    now_.file = strrchr(ptx_file, '/') + 1;
    auto found = seen.find(key);
    if (found == seen.end()) { seen[key] = now_; return; }
    double worst = 0, scale = 0;
    for (int n = 0; n < 16; n++) {
        float a = found->second.values[n], b = now_.values[n];
        double difference = a == b ? 0 : fabs((double)a - b);
        if (!(difference <= worst)) worst = difference;
        if (fabs(a) > scale && fabs(a) < 1e6) scale = fabs(a);
    }
    if (!(worst <= 1e-2 * scale) && !b16) {
        static std::map<std::string, int> told;
        if (told[now_.file + found->second.file]++ == 0)
            fprintf(stderr, "emu: %s and %s (%s) give %g %g %g %g and %g %g %g %g\n", found->second.file.c_str(), now_.file.c_str(), name, found->second.values[0],
                    found->second.values[1], found->second.values[2], found->second.values[3], now_.values[0], now_.values[1], now_.values[2], now_.values[3]);
    }
}

extern "C" int stub_execute(const char *ptx_file, const char *name, void **params, unsigned *grid, unsigned *block, unsigned shared_bytes) {
    static AtEnd at_end;
    auto found = built.find(ptx_file);
    if (found == built.end()) found = built.emplace(ptx_file, build(ptx_file)).first;
    if (!found->second.body) return 1;
    double started = now();
    body = found->second.body, arguments = params, coroutines = found->second.waits, kernel_name = name;
    static unsigned char *memory;
    if (!memory) {
        memory = (unsigned char *)mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (auto &t : threads) t.stack = (char *)mmap(nullptr, 256 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    shared = memory; // aligned to 4096 bytes
    warps = warp_store;
    block_dim = {block[0], block[1], block[2]}, grid_dim = {grid[0], grid[1], grid[2]};
    count = (int)(block[0] * block[1] * block[2]);
    int failed = 0;
    for (unsigned z = 0; z < grid[2] && !failed; z++)
        for (unsigned y = 0; y < grid[1] && !failed; y++)
            for (unsigned x = 0; x < grid[0] && !failed; x++) {
                block_index = {x, y, z};
                memset(shared, POISON, shared_bytes); // NaN: what is read before it is written shows
                live = count, arrived = 0, stuck = false, yields_without_progress = 0;
                for (int w = 0; w < (count + 31) / 32; w++) warps[w].live = count - w * 32 < 32 ? count - w * 32 : 32, warps[w].arrived = 0;
                for (int i = 0; i < count; i++) {
                    Thread &t = threads[i];
                    t.tid = {(unsigned)i % block[0], (unsigned)i / block[0] % block[1], (unsigned)i / (block[0] * block[1])};
                    t.lane = i % 32, t.warp = i / 32, t.done = false, t.sequence = 0;
                    if (!coroutines) { self = &t; body(arguments); continue; }
                    void **top = (void **)(t.stack + (256 << 10) - 64);
                    top[0] = (void *)thread_main; // where emu_switch returns to; then the stack is 16-byte aligned plus 8, as after a call
                    t.sp = top - 6;
                }
                if (coroutines) {
                    self = &threads[0];
                    emu_switch(&main_sp, self->sp);
                    if (stuck) {
                        int waiting = 0;
                        for (int i = 0; i < count; i++) waiting += !threads[i].done;
                        fprintf(stderr, "emu: %s (%s): block %u %u %u: %d of %d threads wait for ever (%d at the block's barrier)\n", name, ptx_file, x, y, z, waiting, count, arrived);
                        failed = 2;
                    }
                }
            }
    SECONDS_RUN += now() - started;
    trace(ptx_file, name, params);
    compare(ptx_file, name, params);
    dump(ptx_file, name, params);
    return failed;
}
