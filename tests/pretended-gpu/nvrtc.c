// A libnvrtc.so over NVIDIA's: keeps every source with its PTX and its errors or warnings, and times the compiler. It is linked to
// NVIDIA's library, where all functions are found that are not here.
#include <dlfcn.h>
#include <limits.h>
#include <nvrtc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { MAX_PROGRAMS = 65536, PATH_SIZE = PATH_MAX + 32 };
static nvrtcProgram PROGRAMS[MAX_PROGRAMS]; // the number of a program is its place
static int PROGRAM_COUNT;
static double SECONDS;
static pthread_mutex_t LOCK = PTHREAD_MUTEX_INITIALIZER;

static char LOGS[PATH_MAX]; // STUB_DIR, absolute
static FILE *LOG;

// NVIDIA's functions.
static __typeof__(nvrtcCreateProgram) *CREATE;
static __typeof__(nvrtcCompileProgram) *COMPILE;
static __typeof__(nvrtcGetPTX) *GET_PTX;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

_Noreturn static void die(const char *what, const char *why) {
    fprintf(stderr, "pretended NVRTC: %s: %s\n", what, why);
    _Exit(70);
}

static void find_nvidias(void) {
    void *library = dlopen("libnvrtc.so.13", RTLD_NOW);
    if (!library) die("libnvrtc.so.13", dlerror());
    CREATE = dlsym(library, "nvrtcCreateProgram");
    COMPILE = dlsym(library, "nvrtcCompileProgram");
    GET_PTX = dlsym(library, "nvrtcGetPTX");
    if (!CREATE || !COMPILE || !GET_PTX) die("libnvrtc.so.13", "lacks functions");
}

static void open_logs(void) {
    const char *directory = getenv("STUB_DIR");
    char path[PATH_SIZE];
    if (!directory || !*directory) directory = "pretended-gpu";
    mkdir(directory, 0777);
    if (!realpath(directory, LOGS)) die(directory, "cannot be made");
    snprintf(path, sizeof path, "%s/sources", LOGS);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/nvrtc.log", LOGS);
    LOG = fopen(path, "w");
    if (!LOG) die(path, "cannot be written");
}

__attribute__((constructor)) static void start(void) {
    find_nvidias();
    open_logs();
}

__attribute__((destructor)) static void end(void) {
    pthread_mutex_lock(&LOCK);
    fprintf(LOG, "total %d programs %.3f s\n", PROGRAM_COUNT, SECONDS);
    fflush(LOG);
    pthread_mutex_unlock(&LOCK);
}

/// Call with LOCK held. NVRTC uses an address again for a new program: the newest is meant.
static int number_of(nvrtcProgram program) {
    for (int i = PROGRAM_COUNT; i-- > 0;)
        if (PROGRAMS[i] == program) return i;
    die("a program", "was never created");
}

static void save(int number, const char *extension, const char *text) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/sources/%05d.%s", LOGS, number, extension);
    FILE *f = fopen(path, "w");
    if (!f) return;
    fputs(text, f);
    fclose(f);
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *name, int count, const char *const *headers, const char *const *names) {
    nvrtcResult result = CREATE(program, source, name, count, headers, names);
    if (result) return result;
    pthread_mutex_lock(&LOCK);
    if (PROGRAM_COUNT == MAX_PROGRAMS) die("programs", "too many");
    save(PROGRAM_COUNT, "cu", source);
    PROGRAMS[PROGRAM_COUNT++] = *program;
    pthread_mutex_unlock(&LOCK);
    return result;
}

static void save_messages(nvrtcProgram program, int number, nvrtcResult result) {
    size_t size = 0;
    if (nvrtcGetProgramLogSize(program, &size) || size <= 1) return;
    char *text = malloc(size);
    if (!nvrtcGetProgramLog(program, text)) save(number, result ? "error" : "warnings", text);
    free(text);
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char *const *options) {
    double started = now();
    nvrtcResult result = COMPILE(program, count, options);
    double took = now() - started;
    pthread_mutex_lock(&LOCK);
    int number = number_of(program);
    SECONDS += took;
    fprintf(LOG, "%05d %.3f s result %d", number, took, result);
    for (int i = 0; i < count && (number == 0 || result); i++) fprintf(LOG, " %s", options[i]);
    fputc('\n', LOG);
    fflush(LOG);
    save_messages(program, number, result);
    pthread_mutex_unlock(&LOCK);
    return result;
}

nvrtcResult nvrtcGetPTX(nvrtcProgram program, char *ptx) {
    nvrtcResult result = GET_PTX(program, ptx);
    if (result) return result;
    pthread_mutex_lock(&LOCK);
    save(number_of(program), "ptx", ptx);
    pthread_mutex_unlock(&LOCK);
    return result;
}
