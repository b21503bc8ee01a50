/* Every committed input of the fuzz targets (tests/fuzz/corpus, and tests/fuzz/regress: what fuzzing found),
 * each in a process of its own: a crash, a hang or an allocation far beyond the file names that file. */
#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/test.h"

enum { LIMIT_S = 20, INPUT_BYTES = 1 << 20, PEAK_KIB = 512 << 10 };
#define ASAN_KIB (1L << 32) /* with AddressSanitizer the address space is terabytes before anything runs */

typedef int target_fn(const uint8_t *data, size_t size);

/* With AddressSanitizer an allocation beyond this ends the process; without it VmPeak is compared. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "max_allocation_size_mb=512";
}

/* Highest address space used so far, KiB. */
static long peak_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && !kib && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmPeak:", 7)) kib = strtol(line + 7, NULL, 10);
    if (f) fclose(f);
    return kib;
}

static void feed(target_fn *target, const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *room = malloc(INPUT_BYTES), *data;
    const size_t n = f && room ? fread(room, 1, INPUT_BYTES, f) : 0;
    if (f) fclose(f);
    data = malloc(n ? n : 1); /* exact, so that a sanitizer sees a read past the end */
    if (!data || !room) _exit(99);
    memcpy(data, room, n);
    free(room);
    alarm(LIMIT_S);
    const long before = peak_kib();
    target(data, n);
    if (peak_kib() - before > PEAK_KIB && before < ASAN_KIB) abort();
    free(data);
}

static int replay(target_fn *target, const char *folder)
{
    int count = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[1024];
        int status = -1;
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            feed(target, path);
            exit(0); /* not _exit: leaks are looked for here */
        }
        if (child > 0) waitpid(child, &status, 0);
        T_CHECK(status == 0, "%s ended with signal %d, code %d", path, WTERMSIG(status), WEXITSTATUS(status));
        count++;
    }
    if (d) closedir(d);
    return count;
}

int main(void)
{
    static const struct {
        const char *name;
        target_fn *run;
    } targets[] = {
#define ROW(name) {#name, fuzz_##name},
        FUZZ_TARGETS(ROW)};
    const char *tests = getenv("FX_TESTS_DIR");
    char folder[512];
    if (!tests) tests = FUZZ_TESTS_DIR;
    fuzz_folder(); /* made here, so that it goes with this process and not with the first child */
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        snprintf(folder, sizeof folder, "%s/fuzz/corpus/%s", tests, targets[i].name);
        const int n = replay(targets[i].run, folder);
        T_CHECK(n > 0, "%s holds no inputs", folder);
        snprintf(folder, sizeof folder, "%s/fuzz/regress/%s", tests, targets[i].name);
        replay(targets[i].run, folder);
    }
    return test_end("t_fuzz_replay");
}
