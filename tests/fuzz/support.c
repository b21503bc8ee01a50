/* The folder that fuzz targets write their files into, and inputs made of several files. */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[256];
static pid_t owner; /* a forked child must not remove its parent's folder */

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_folder(void)
{
    if (getpid() == owner) nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *fuzz_folder(void)
{
    if (folder[0]) return folder;
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.200s/fx_fuzz_XXXXXX", base ? base : "/tmp");
    FUZZ_EXPECT(mkdtemp(folder));
    owner = getpid();
    atexit(remove_folder);
    return folder;
}

const char *fuzz_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    return path;
}

void fuzz_make_folder(const char *name)
{
    mkdir(fuzz_path(name), 0700);
}

void fuzz_write(const char *name, const void *data, size_t size)
{
    const int fd = open(fuzz_path(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_EXPECT(fd >= 0);
    FUZZ_EXPECT(size == 0 || write(fd, data, size) == (ssize_t)size);
    close(fd);
}

void fuzz_remove(const char *name)
{
    unlink(fuzz_path(name));
}

/* The digit of a part line at p, -1 for anything else. */
static int part_line(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 5 || memcmp(p, "\n%%", 3) != 0 || p[4] != '\n') return -1;
    return p[3] >= '0' && p[3] < '0' + FUZZ_PARTS ? p[3] - '0' : -1;
}

void fuzz_split(const uint8_t *data, size_t size, fuzz_part parts[FUZZ_PARTS])
{
    const uint8_t *end = data + size, *begin = data;
    int current = 0;
    memset(parts, 0, FUZZ_PARTS * sizeof *parts);
    for (const uint8_t *p = data; p < end;) {
        const int next = part_line(p, end);
        if (next < 0) {
            p++;
            continue;
        }
        if (p > data) parts[current] = (fuzz_part){begin, (size_t)(p - begin)};
        current = next;
        begin = p += 5;
    }
    if (size) parts[current] = (fuzz_part){begin, (size_t)(end - begin)};
}

void fuzz_write_parts(const uint8_t *data, size_t size, int count, const char *const name[])
{
    fuzz_part parts[FUZZ_PARTS];
    fuzz_split(data, size, parts);
    for (int i = 0; i < count; i++)
        if (parts[i].data)
            fuzz_write(name[i], parts[i].data, parts[i].size);
        else
            fuzz_remove(name[i]);
}
