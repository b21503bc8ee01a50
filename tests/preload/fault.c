/* A fault at a known place: loaded into a rank with LD_PRELOAD, it watches the lines that `fluxpar -v` writes
 * about its phases and strikes in the middle of the one asked for, or beside a rename. Used by tests/sh_faults.sh,
 * sh_batch.sh and sh_requeue.sh.
 *   FAULT_RANK=1                which rank of the launcher
 *   FAULT_AT="denoise step 3"   the end of the line that arms it
 *   FAULT_SEND=1                strike at the next send of more than 4 KiB (a ring hop), not at once
 *   FAULT_SPOIL=1               no strike: one bit of every message of more than 256 bytes from that rank is flipped
 *   FAULT_RENAME=2              strike after the second file has got its name, -2: before
 *   FAULT_LOG=FILE              what is renamed and what is synced, in order, one name per line
 *   FAULT=9                     the signal it sends to itself; "memory": no more address space; "files": none
 *                               larger than 1 KiB */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static int armed;

static int chosen(void)
{
    const char *want = getenv("FAULT_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!rank) rank = getenv("PMI_RANK");
    if (!rank) rank = getenv("SLURM_PROCID");
    return want && !strcmp(want, rank ? rank : "0");
}

static void strike(void)
{
    const char *what = getenv("FAULT");
    const struct rlimit none = {1 << 10, 1 << 10};
    armed = 0;
    if (!what) return;
    if (!strcmp(what, "memory"))
        setrlimit(RLIMIT_AS, &none);
    else if (!strcmp(what, "files"))
        setrlimit(RLIMIT_FSIZE, &none);
    else
        kill(getpid(), atoi(what));
}

static int about(const char *line, size_t n)
{
    const char *at = getenv("FAULT_AT");
    const size_t m = at ? strlen(at) : 0;
    return m && n > m + 1 && line[n - 1] == '\n' && !memcmp(line + n - 1 - m, at, m);
}

ssize_t write(int fd, const void *data, size_t n);
ssize_t write(int fd, const void *data, size_t n)
{
    const ssize_t done = syscall(SYS_write, fd, data, n);
    const int saved = errno;
    if (fd == STDERR_FILENO && chosen() && about(data, n)) {
        armed = 1;
        if (!getenv("FAULT_SEND")) strike();
    }
    errno = saved;
    return done;
}

static void note(const char *what, const char *name)
{
    const char *log = getenv("FAULT_LOG");
    if (!log || !chosen()) return;
    FILE *to = fopen(log, "a");
    const char *slash = strrchr(name, '/');
    if (to) fprintf(to, "%s %s\n", what, slash ? slash + 1 : name);
    if (to) fclose(to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    static int count;
    const int at = getenv("FAULT_RENAME") ? atoi(getenv("FAULT_RENAME")) : 0;
    count++;
    if (chosen() && at == -count) strike();
    const int failed = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    const int saved = errno;
    if (!failed) note("rename", to);
    if (!failed && chosen() && at == count) strike();
    errno = saved;
    return failed;
}

int fsync(int fd)
{
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, name, sizeof name - 1);
    const int failed = (int)syscall(SYS_fsync, fd), saved = errno;
    name[n > 0 ? n : 0] = 0;
    if (!failed) note("sync", name);
    errno = saved;
    return failed;
}

/* As wide as a register, whatever the MPI library's handles are. */
typedef void *word;
int MPI_Isend(word data, word count, word type, word peer, word tag, word comm, word request);
int MPI_Isend(word data, word count, word type, word peer, word tag, word comm, word request)
{
    int (*next)(word, word, word, word, word, word, word);
    *(void **)&next = dlsym(RTLD_NEXT, "MPI_Isend");
    if (armed && (int)(long)count > 4096) strike();
    if (getenv("FAULT_SPOIL") && (int)(long)count > 256 && chosen())
        *(unsigned char *)data ^= 0x40; /* of a mantissa */
    return next(data, count, type, peer, tag, comm, request);
}
