// A libnvrtc.so that hands everything to the real one, keeps every source with its PTX or its error log, and times it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <nvrtc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static void *REAL;
static const char *DIR_;
static FILE *LOG;
static int COUNT;
static double SECONDS;
static pthread_mutex_t LOCK = PTHREAD_MUTEX_INITIALIZER;
typedef struct { nvrtcProgram program; int index; uint64_t hash[2]; char *cached; } Entry;
static Entry ENTRIES[65536];

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }

__attribute__((constructor)) static void start(void) {
    char path[4096];
    const char *real = getenv("STUB_NVRTC");
    REAL = dlopen(real ? real : "libnvrtc.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!REAL) { fprintf(stderr, "pretended NVRTC: %s (set STUB_NVRTC)\n", dlerror()); exit(70); }
    DIR_ = getenv("STUB_DIR");
    if (!DIR_) DIR_ = "pretended-gpu";
    mkdir(DIR_, 0777);
    snprintf(path, sizeof path, "%s/sources", DIR_);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/nvrtc.log", DIR_);
    LOG = fopen(path, "w");
}
__attribute__((destructor)) static void end(void) { if (LOG) { fprintf(LOG, "total %d programs %.3f s\n", COUNT, SECONDS); fclose(LOG); } }

static Entry *entry_of(nvrtcProgram program) {
    for (int i = COUNT; i-- > 0;) if (ENTRIES[i].program == program) return &ENTRIES[i];
    abort();
}
static int index_of(nvrtcProgram program) { return entry_of(program)->index; }
static void mix(uint64_t hash[2], const char *text) {
    for (; *text; text++) {
        hash[0] = (hash[0] ^ (unsigned char)*text) * 0x100000001b3ull;
        hash[1] = (hash[1] + (unsigned char)*text) * 0x9e3779b97f4a7c15ull ^ hash[1] >> 29;
    }
}
/// STUB_PTX_CACHE: a directory where PTX is kept from one run to the next. Leave it out to time what a user waits for.
static int cache_path(char *path, size_t size, const Entry *entry) {
    const char *directory = getenv("STUB_PTX_CACHE");
    if (!directory) return 0;
    mkdir(directory, 0777);
    snprintf(path, size, "%s/%016llx%016llx.ptx", directory, (unsigned long long)entry->hash[0], (unsigned long long)entry->hash[1]);
    return 1;
}
static void save(int index, const char *extension, const char *text, size_t length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/sources/%05d.%s", DIR_, index, extension);
    FILE *f = fopen(path, "w");
    if (f) { fwrite(text, 1, length, f); fclose(f); }
}

#define REAL_(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(REAL, #name)

nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *name, int headers, const char *const *texts, const char *const *names) {
    REAL_(nvrtcCreateProgram);
    nvrtcResult result = real(program, source, name, headers, texts, names);
    pthread_mutex_lock(&LOCK);
    ENTRIES[COUNT] = (Entry){*program, COUNT, {0xcbf29ce484222325ull, 7}, NULL};
    mix(ENTRIES[COUNT].hash, source);
    save(COUNT, "cu", source, strlen(source));
    COUNT++;
    pthread_mutex_unlock(&LOCK);
    return result;
}
nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char *const *options) {
    REAL_(nvrtcCompileProgram);
    char path[4096];
    pthread_mutex_lock(&LOCK);
    Entry *entry = entry_of(program);
    for (int i = 0; i < count; i++) mix(entry->hash, options[i]);
    FILE *kept = cache_path(path, sizeof path, entry) ? fopen(path, "r") : NULL;
    if (kept) {
        entry->cached = calloc(1, 16 << 20);
        size_t length = fread(entry->cached, 1, (16 << 20) - 1, kept);
        entry->cached = realloc(entry->cached, length + 1);
        fclose(kept);
    }
    pthread_mutex_unlock(&LOCK);
    if (kept) return NVRTC_SUCCESS;
    double started = now();
    nvrtcResult result = real(program, count, options);
    double took = now() - started;
    pthread_mutex_lock(&LOCK);
    int index = index_of(program);
    SECONDS += took;
    fprintf(LOG, "%05d %.3f s result %d", index, took, result);
    if (index == 0 || result) for (int i = 0; i < count; i++) fprintf(LOG, " %s", options[i]);
    fputc('\n', LOG);
    fflush(LOG);
    size_t size = 0;
    __typeof__(&nvrtcGetProgramLogSize) log_size = (__typeof__(&nvrtcGetProgramLogSize))dlsym(REAL, "nvrtcGetProgramLogSize");
    __typeof__(&nvrtcGetProgramLog) get_log = (__typeof__(&nvrtcGetProgramLog))dlsym(REAL, "nvrtcGetProgramLog");
    if (log_size(program, &size) == NVRTC_SUCCESS && size > 1) {
        char *text = malloc(size);
        get_log(program, text);
        save(index, result ? "error" : "warnings", text, size - 1);
        free(text);
    }
    pthread_mutex_unlock(&LOCK);
    return result;
}
nvrtcResult nvrtcGetPTX(nvrtcProgram program, char *ptx) {
    REAL_(nvrtcGetPTX);
    Entry *entry = entry_of(program);
    nvrtcResult result = NVRTC_SUCCESS;
    if (entry->cached) strcpy(ptx, entry->cached);
    else result = real(program, ptx);
    if (result != NVRTC_SUCCESS) return result;
    save(entry->index, "ptx", ptx, strlen(ptx));
    char path[4096];
    if (!entry->cached && cache_path(path, sizeof path, entry)) {
        FILE *f = fopen(path, "w");
        if (f) { fputs(ptx, f); fclose(f); }
    }
    return result;
}
nvrtcResult nvrtcGetPTXSize(nvrtcProgram program, size_t *size) {
    REAL_(nvrtcGetPTXSize);
    Entry *entry = entry_of(program);
    if (!entry->cached) return real(program, size);
    *size = strlen(entry->cached) + 1;
    return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *cubin) { REAL_(nvrtcGetCUBIN); return real(program, cubin); }
nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *size) { REAL_(nvrtcGetCUBINSize); return real(program, size); }
nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log) { REAL_(nvrtcGetProgramLog); return real(program, log); }
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *size) { REAL_(nvrtcGetProgramLogSize); return real(program, size); }
nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program) { REAL_(nvrtcDestroyProgram); return real(program); }
nvrtcResult nvrtcVersion(int *major, int *minor) { REAL_(nvrtcVersion); return real(major, minor); }
const char *nvrtcGetErrorString(nvrtcResult result) { REAL_(nvrtcGetErrorString); return real(result); }
