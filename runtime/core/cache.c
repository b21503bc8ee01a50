/* One file per result: KIND-SUM OF THE KEY, a header, the key, the result. See cache.h. */
#include "runtime/core/cache.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct header {
    char magic[16];
    uint64_t key_bytes, bytes, sum; /* sum: of key and result */
} header;

static const char magic[16] = "fluxpar cache 1";

/* FNV-1a, 64 bits (Fowler, Noll, Vo) */
static uint64_t sum_of(uint64_t sum, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++) sum = (sum ^ p[i]) * 0x100000001b3u;
    return sum;
}

enum { PATH_ROOM = 1024 };
static const uint64_t basis = 0xcbf29ce484222325u;

static bool folder(char out[PATH_ROOM])
{
    const char *own = getenv("FLUXPAR_CACHE"), *shared = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;
    if (own)
        n = snprintf(out, PATH_ROOM, "%s", own);
    else if (shared && shared[0] == '/')
        n = snprintf(out, PATH_ROOM, "%s/fluxpar", shared);
    else if (home && home[0] == '/')
        n = snprintf(out, PATH_ROOM, "%s/.cache/fluxpar", home);
    else
        return false;
    return n > 0 && n < PATH_ROOM;
}

static bool path_of(const char *kind, const void *key, size_t key_bytes, char out[PATH_ROOM])
{
    char dir[PATH_ROOM];
    if (!folder(dir)) return false;
    const int n = snprintf(out, PATH_ROOM, "%s/%s-%016llx", dir, kind,
                           (unsigned long long)sum_of(basis, key, key_bytes));
    return n > 0 && n < PATH_ROOM;
}

static bool read_all(int fd, void *data, size_t bytes)
{
    for (char *p = data; bytes;) {
        const ssize_t got = read(fd, p, bytes);
        if (got <= 0) return false;
        p += got, bytes -= (size_t)got;
    }
    return true;
}

static bool read_open(int fd, const void *key, size_t key_bytes, void **data, size_t *bytes)
{
    header h;
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || !read_all(fd, &h, sizeof h))
        return false;
    if (memcmp(h.magic, magic, sizeof magic) != 0 || h.key_bytes != key_bytes || h.bytes > FX_CACHE_MAX)
        return false;
    const size_t all = key_bytes + (size_t)h.bytes;
    char *block = calloc(1, all + 1);
    if (block && read_all(fd, block, all) && memcmp(block, key, key_bytes) == 0 &&
        sum_of(basis, block, all) == h.sum) {
        memmove(block, block + key_bytes, (size_t)h.bytes);
        block[h.bytes] = 0;
        *data = block;
        *bytes = (size_t)h.bytes;
        return true;
    }
    free(block);
    return false;
}

bool fx_cache_read(const char *kind, const void *key, size_t key_bytes, void **data, size_t *bytes)
{
    char path[PATH_ROOM];
    if (key_bytes > FX_CACHE_MAX || !path_of(kind, key, key_bytes, path)) return false;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return false;
    const bool found = read_open(fd, key, key_bytes, data, bytes);
    close(fd);
    return found;
}

/* Every folder of the path that is missing. */
static void make_folders(char *path)
{
    for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        (void)mkdir(path, 0700);
        *p = '/';
    }
}

void fx_cache_write(const char *kind, const void *key, size_t key_bytes, const void *data, size_t bytes)
{
    char path[PATH_ROOM], part[PATH_ROOM + 16];
    header h = {.key_bytes = key_bytes, .bytes = bytes};
    if (key_bytes > FX_CACHE_MAX || bytes > FX_CACHE_MAX || !path_of(kind, key, key_bytes, path)) return;
    make_folders(path);
    memcpy(h.magic, magic, sizeof magic);
    h.sum = sum_of(sum_of(basis, key, key_bytes), data, bytes);
    snprintf(part, sizeof part, "%s.XXXXXX", path);
    const int fd = mkstemp(part);
    if (fd < 0) return;
    FILE *f = fdopen(fd, "w");
    if (!f) {
        close(fd);
        (void)unlink(part);
        return;
    }
    bool ok = fwrite(&h, sizeof h, 1, f) == 1 && (!key_bytes || fwrite(key, key_bytes, 1, f) == 1) &&
              (!bytes || fwrite(data, bytes, 1, f) == 1);
    ok = !fclose(f) && ok;
    if (!ok || rename(part, path)) (void)unlink(part);
}
