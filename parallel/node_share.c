/* Memory shared by the ranks of one node, for weights. Ranks find each other by host identity gathered over
 * the communicator; one of them makes an anonymous file (memfd) and the others open it through
 * /proc/<pid>/fd: no name anywhere, nothing left behind when a process is killed. */
#include "parallel/node_share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- who is on this node ---- */

static uint64_t fnv(uint64_t h, const char *text)
{
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

static uint64_t file_line(uint64_t h, const char *path)
{
    char line[128] = "";
    FILE *f = fopen(path, "r");
    if (f && !fgets(line, sizeof line, f)) line[0] = 0;
    if (f) fclose(f);
    return fnv(h, line);
}

/* Host name and boot id: containers of one machine share the second, cloned machines the first. */
static uint64_t host_id(void)
{
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    return file_line(fnv(0xcbf29ce484222325u, name), "/proc/sys/kernel/random/boot_id");
}

/* first[r]: the lowest rank on the host of r. */
static fx_status find_hosts(fx_comm *comm, int **first)
{
    const size_t size = (size_t)fx_comm_size(comm);
    uint64_t mine = host_id(), *id = malloc(size * sizeof *id);
    size_t *bytes = malloc(2 * size * sizeof *bytes);
    int *f = malloc(size * sizeof *f);
    fx_status st = FX_OK;
    if (!id || !bytes || !f) {
        st = FX_FAIL(FX_ENOMEM, "no memory for a list of %zu ranks", size);
        goto out;
    }
    for (size_t r = 0; r < size; r++) {
        id[r] = mine; /* a plan communicator gathers nothing: one host */
        bytes[r] = sizeof mine;
        bytes[size + r] = r * sizeof mine;
    }
    FX_TRY_OUT(fx_comm_all_gather(comm, &mine, id, bytes, bytes + size));
    for (size_t r = 0; r < size; r++)
        for (size_t i = 0; i <= r; i++)
            if (id[i] == id[r]) {
                f[r] = (int)i;
                break;
            }
out:
    free(id);
    free(bytes);
    if (st != FX_OK)
        free(f);
    else
        *first = f;
    return st;
}

fx_status fx_node_ranks(fx_comm *comm, int *local_rank, int *local_size, int *nodes)
{
    int *first;
    const int me = fx_comm_rank(comm);
    FX_TRY(find_hosts(comm, &first));
    *local_rank = *local_size = *nodes = 0;
    for (int r = 0; r < fx_comm_size(comm); r++) {
        *nodes += first[r] == r;
        *local_size += first[r] == first[me];
        *local_rank += r < me && first[r] == first[me];
    }
    free(first);
    return FX_OK;
}

/* ---- pages ---- */

typedef struct share_state {
    fx_comm *local; /* NULL: this process alone */
} share_state;

typedef struct memory_name {
    int64_t pid, fd, bytes; /* fd -1: the maker failed */
    uint64_t mark; /* first word of the pages: another pid namespace may have a process of that number */
} memory_name;

static fx_status map_private(size_t bytes, void **out)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *out = NULL;
    FX_CHECK(p != MAP_FAILED, FX_ENOMEM, "%zu MiB of memory for weights: %s", bytes >> 20, strerror(errno));
    madvise(p, bytes, MADV_HUGEPAGE); /* a hint */
    *out = p;
    return FX_OK;
}

static fx_status map_shared(int fd, size_t bytes, void **out)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    FX_CHECK(p != MAP_FAILED, FX_ENOMEM, "%zu MiB of shared memory for weights: %s", bytes >> 20,
             strerror(errno));
    madvise(p, bytes, MADV_HUGEPAGE);
    *out = p;
    return FX_OK;
}

static fx_status make(size_t bytes, memory_name *name, void **out)
{
    const int fd = memfd_create("fluxpar-weights", MFD_CLOEXEC);
    FX_CHECK(fd >= 0, FX_ENOMEM, "memfd_create: %s", strerror(errno));
    fx_status st = FX_OK;
    if (ftruncate(fd, (off_t)bytes))
        st = FX_FAIL(FX_ENOMEM, "%zu MiB of shared memory: %s", bytes >> 20, strerror(errno));
    if (st == FX_OK) st = map_shared(fd, bytes, out);
    if (st != FX_OK) {
        close(fd);
        return st;
    }
    name->pid = getpid();
    name->fd = fd;
    name->bytes = (int64_t)bytes;
    name->mark = host_id() ^ ((uint64_t)getpid() << 32) ^ (uint64_t)(uintptr_t)*out;
    memcpy(*out, &name->mark, sizeof name->mark);
    return FX_OK;
}

static fx_status attach(const memory_name *name, void **out)
{
    char path[64];
    uint64_t mark;
    FX_CHECK(name->fd >= 0, FX_ENOMEM, "the first rank of this node has no shared memory");
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)name->pid, (long long)name->fd);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    FX_CHECK(fd >= 0, FX_ENOMEM, "%s: %s", path, strerror(errno));
    fx_status st = FX_OK;
    if (lseek(fd, 0, SEEK_END) != name->bytes || pread(fd, &mark, sizeof mark, 0) != (ssize_t)sizeof mark ||
        mark != name->mark)
        st = FX_FAIL(FX_ENOMEM, "%s is not this node's shared memory", path);
    if (st == FX_OK) st = map_shared(fd, (size_t)name->bytes, out);
    close(fd);
    return st;
}

/* Collective: all local ranks get the same pages, or all get an error. */
static fx_status share_pages(fx_comm *local, size_t bytes, void **out)
{
    memory_name name = {.fd = -1};
    fx_status mine = FX_OK;
    *out = NULL;
    if (fx_comm_rank(local) == 0) mine = make(bytes, &name, out);
    FX_TRY(fx_comm_broadcast(local, 0, &name, sizeof name));
    if (fx_comm_rank(local)) mine = attach(&name, out);
    const fx_status st = fx_comm_vote(local, mine, NULL);
    if (name.fd >= 0 && fx_comm_rank(local) == 0)
        close((int)name.fd); /* everyone has it open, or nobody may */
    if (st == FX_OK) {
        if (fx_comm_rank(local) == 0 && *out) memset(*out, 0, sizeof name.mark);
        return fx_comm_barrier(local);
    }
    if (*out) munmap(*out, bytes);
    *out = NULL;
    return st;
}

static size_t whole_pages(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return bytes ? (bytes + page - 1) / page * page : page;
}

static fx_status share_alloc(void *ctx, size_t bytes, void **out)
{
    const share_state *s = ctx;
    if (s->local) return share_pages(s->local, whole_pages(bytes), out);
    return map_private(whole_pages(bytes), out);
}

static void share_release(void *ctx, void *base, size_t bytes)
{
    (void)ctx;
    if (base) munmap(base, whole_pages(bytes));
}

/* The vote's messages order memory between processes; the fences keep the compiler and this core in line. */
static fx_status share_barrier(void *ctx, fx_status mine)
{
    const share_state *s = ctx;
    if (!s->local) return mine;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    const fx_status st = fx_comm_vote(s->local, mine, NULL);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return st;
}

/* ---- open ---- */

/* One page, really shared? Every rank of the job learns the same answer for its node. */
static fx_status try_sharing(fx_comm *local, bool *works)
{
    void *page = NULL;
    const fx_status st = share_pages(local, whole_pages(1), &page);
    *works = st == FX_OK;
    if (page) munmap(page, whole_pages(1));
    return st == FX_OK || st == FX_ENOMEM ? FX_OK
                                          : st; /* ENOMEM: sharing refused, agreed by all local ranks */
}

static fx_status open_local(fx_comm *comm, share_state *s)
{
    int *first;
    bool works = false;
    FX_TRY(find_hosts(comm, &first));
    const int host = first[fx_comm_rank(comm)];
    free(first);
    FX_TRY(fx_comm_split(comm, host, fx_comm_rank(comm), &s->local));
    if (fx_comm_size(s->local) > 1) FX_TRY(try_sharing(s->local, &works));
    if (!works) fx_comm_close(&s->local);
    return FX_OK;
}

fx_status fx_node_share_open(fx_comm *comm, fx_share *out)
{
    memset(out, 0, sizeof *out);
    share_state *s = calloc(1, sizeof *s);
    FX_CHECK(s, FX_ENOMEM, "no memory for a share record");
    const fx_status st = fx_comm_size(comm) > 1 ? open_local(comm, s) : FX_OK;
    if (st != FX_OK) {
        fx_comm_close(&s->local);
        free(s);
        return st;
    }
    *out = (fx_share){.local_rank = s->local ? fx_comm_rank(s->local) : 0,
                      .local_size = s->local ? fx_comm_size(s->local) : 1,
                      .alloc = share_alloc,
                      .release = share_release,
                      .barrier = share_barrier,
                      .ctx = s};
    return FX_OK;
}

void fx_node_share_close(fx_share *share)
{
    share_state *s = share->ctx;
    if (s) fx_comm_close(&s->local);
    free(s);
    memset(share, 0, sizeof *share);
}
