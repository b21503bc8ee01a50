/* Files on their way in: opened, measured and read exactly, before anything parses them. Everything in
 * runtime/io that reads goes through here, so that a missing file, a folder and a git-lfs pointer are told
 * apart in one place. */
#include "runtime/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

fx_status fx_file_open(const char *path, int *fd, uint64_t *size)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo must not block the check below */
    FX_CHECK(*fd >= 0, FX_EREAD, "cannot open %s; %s", path, strerror(errno));
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode)) {
        *size = (uint64_t)info.st_size;
        return FX_OK;
    }
    close(*fd);
    *fd = -1;
    return FX_FAIL(FX_EREAD, "cannot read %s; it is %s, not a file", path,
                   S_ISDIR(info.st_mode) ? "a folder" : "a device or pipe");
}

fx_status fx_file_read_at(int fd, const char *path, uint64_t offset, void *dst, size_t n)
{
    char *p = dst;
    while (n > 0) {
        const size_t want =
            n < ((size_t)1 << 30) ? n : (size_t)1 << 30; /* Linux moves at most 2 GiB per call */
        const ssize_t got = pread(fd, p, want, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        FX_CHECK(got >= 0, FX_EREAD, "cannot read %s at byte %llu; %s", path, (unsigned long long)offset,
                 strerror(errno));
        FX_CHECK(got > 0, FX_EREAD,
                 "%s ends at byte %llu, %zu bytes before expected; it was cut while in use", path,
                 (unsigned long long)offset, n);
        p += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return FX_OK;
}

fx_status fx_file_refuse_lfs(const char *path, const char *head, size_t n, uint64_t file_size)
{
    static const char start[] = "version https://git-lfs";
    const size_t length = sizeof start - 1;
    if (n < length || memcmp(head, start, length) != 0) return FX_OK;
    return FX_FAIL(FX_EFORMAT, "%s is a %llu-byte git-lfs pointer, not the file itself; run 'git lfs pull'",
                   path, (unsigned long long)file_size);
}

/* Reads an opened file whole into fresh memory. */
static fx_status load_open(int fd, const char *path, size_t size, char **data)
{
    char *bytes = malloc(size + 1);
    FX_CHECK(bytes, FX_ENOMEM, "no memory for %s (%zu bytes)", path, size);
    fx_status st = fx_file_read_at(fd, path, 0, bytes, size);
    if (st == FX_OK) st = fx_file_refuse_lfs(path, bytes, size, size);
    if (st != FX_OK) {
        free(bytes);
        return st;
    }
    bytes[size] = 0;
    *data = bytes;
    return FX_OK;
}

fx_status fx_file_load(const char *path, size_t max_bytes, char **data, size_t *size)
{
    int fd;
    uint64_t file_size;
    fx_status st;
    FX_TRY(fx_file_open(path, &fd, &file_size));
    if (file_size > max_bytes)
        st = FX_FAIL(FX_EFORMAT, "%s is %llu bytes, too large for a file of its kind (limit %zu)", path,
                     (unsigned long long)file_size, max_bytes);
    else
        st = load_open(fd, path, (size_t)file_size, data);
    if (st == FX_OK) *size = (size_t)file_size;
    close(fd);
    return st;
}

fx_status fx_file_join(char *out, size_t size, const char *dir, const char *component, const char *name)
{
    const bool part = component && component[0];
    const int n = snprintf(out, size, "%s/%s%s%s", dir, part ? component : "", part ? "/" : "", name);
    FX_CHECK(n >= 0 && (size_t)n < size, FX_EINVAL, "path too long: %s/%s", dir, name);
    return FX_OK;
}
