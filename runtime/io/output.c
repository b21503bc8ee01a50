/* The last step of a run: bytes become a file. Written to a temporary name in the same folder, synced,
 * renamed, folder synced, so that a crash, a full disk or a signal never leaves half a picture under the
 * user's name, and a file that somebody else made in the meantime is not replaced without -f. */
#include "runtime/io/output.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_PART = 180, ATTEMPTS = 100 }; /* the temporary name must fit NAME_MAX (255) with its pid */

/* Plain storage, so that a signal handler may read it; `temporary_set` is written last and cleared first. */
static char temporary[PATH_MAX];
static volatile sig_atomic_t temporary_set;

/* Splits path: the folder ("." when none) into dir; returns the name part. */
static const char *split(const char *path, char dir[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(dir, PATH_MAX, ".");
    else
        snprintf(dir, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    return slash ? slash + 1 : path;
}

static const char *advice(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT: return "free some space or choose another folder with -o";
    case ENOENT: return "create the folder first or choose another with -o";
    default: return "choose another place with -o";
    }
}

static fx_status write_failed(const char *path, const char *what, int error)
{
    return FX_FAIL(FX_EWRITE, "cannot write %s; %s: %s; %s", path, what, strerror(error), advice(error));
}

static fx_status refuse_existing(const char *path)
{
    return FX_FAIL(FX_EINVAL, "%s exists; it would be lost; use -f to overwrite it", path);
}

static fx_status check_target(const char *path, bool overwrite)
{
    struct stat info;
    const size_t n = strlen(path);
    FX_CHECK(n > 0, FX_EINVAL, "the output name is empty; give a file name with -o");
    FX_CHECK(n < PATH_MAX, FX_EINVAL, "the output name has %zu characters; the system allows %d; shorten it",
             n, PATH_MAX - 1);
    FX_CHECK(path[n - 1] != '/', FX_EINVAL, "%s is a folder; an output file is needed; add a file name",
             path);
    if (stat(path, &info) != 0) {
        const int error = errno;
        if (error == ENOENT && lstat(path, &info) != 0) return FX_OK;
        if (error == ENOENT) return overwrite ? FX_OK : refuse_existing(path); /* a dangling link */
        return write_failed(path, "stat", error);
    }
    FX_CHECK(!S_ISDIR(info.st_mode), FX_EINVAL, "%s is a folder; an output file is needed; add a file name",
             path);
    FX_CHECK(
        S_ISREG(info.st_mode), FX_EINVAL,
        "%s is a device or pipe; output is renamed into place, which would replace it; choose a file name",
        path);
    return overwrite ? FX_OK : refuse_existing(path);
}

/* Fills `temporary`; the number tells apart processes with the same pid on a shared disk. */
static bool name_temporary(const char *path, int attempt)
{
    char dir[PATH_MAX], number[16] = "";
    const char *name = split(path, dir);
    if (attempt) snprintf(number, sizeof number, "-%d", attempt);
    const int n = snprintf(temporary, sizeof temporary, "%s/.%.*s.fluxpar-%ld%s.tmp", dir, NAME_PART, name,
                           (long)getpid(), number);
    return n > 0 && (size_t)n < sizeof temporary;
}

fx_status fx_output_begin(const char *path, int *fd)
{
    *fd = -1;
    temporary_set = 0;
    for (int attempt = 0; attempt < ATTEMPTS && *fd < 0; attempt++) {
        FX_CHECK(name_temporary(path, attempt), FX_EWRITE,
                 "cannot write %s; the path is too long; shorten it", path);
        *fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (*fd < 0 && errno != EEXIST) return write_failed(path, "create a file in its folder", errno);
    }
    if (*fd < 0) return write_failed(path, "create a temporary file", EEXIST);
    temporary_set = 1;
    return FX_OK;
}

void fx_output_cleanup(void)
{
    if (!temporary_set) return;
    temporary_set = 0;
    const int saved = errno;
    (void)unlink(temporary);
    errno = saved;
}

/* "-4711" or "4711-1" up to ".tmp" at the end. */
static bool is_number_and_end(const char *text)
{
    const size_t n = strspn(text, "0123456789");
    if (n && text[n] == '-' && isdigit((unsigned char)text[n + 1]))
        text += 1 + strspn(text + n + 1, "0123456789");
    return n && !strcmp(text + n, ".tmp");
}

int fx_output_sweep(const char *path)
{
    char dir[PATH_MAX], start[PATH_MAX];
    int count = 0;
    if (strlen(path) >= PATH_MAX) return 0;
    const char *name = split(path, dir);
    const int length = snprintf(start, sizeof start, ".%.*s.fluxpar-", NAME_PART, name);
    DIR *folder = opendir(dir);
    for (struct dirent *e; folder && (e = readdir(folder));) {
        if (strncmp(e->d_name, start, (size_t)length) || !is_number_and_end(e->d_name + length)) continue;
        count += unlinkat(dirfd(folder), e->d_name, 0) == 0;
    }
    if (folder) closedir(folder);
    return count;
}

void fx_output_abort(int fd)
{
    if (fd >= 0) close(fd);
    fx_output_cleanup();
}

fx_status fx_output_check(const char *path, bool overwrite)
{
    char dir[PATH_MAX];
    int fd;
    FX_TRY(check_target(path, overwrite));
    const char *name = split(path, dir);
    const long longest = pathconf(dir, _PC_NAME_MAX);
    FX_CHECK(longest < 0 || strlen(name) <= (size_t)longest, FX_EINVAL,
             "%s: file names here have at most %ld characters; shorten it", path, longest);
    FX_TRY(
        fx_output_begin(path, &fd)); /* the only check that knows quotas, root squash and read-only mounts */
    fx_output_abort(fd);
    return FX_OK;
}

/* rename that never replaces; 0 or errno. */
static int rename_new(const char *path)
{
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) return errno;
    if (link(temporary, path) == 0) return unlink(temporary) == 0 ? 0 : errno;
    if (errno != EPERM && errno != ENOSYS && errno != ENOTSUP && errno != EMLINK) return errno;
    if (access(path, F_OK) == 0) return EEXIST; /* neither call on this file system: the small race stays */
    return rename(temporary, path) == 0 ? 0 : errno;
}

static fx_status publish(const char *path, bool overwrite)
{
    const int error = !overwrite ? rename_new(path) : rename(temporary, path) == 0 ? 0 : errno;
    if (error == EEXIST && !overwrite) return refuse_existing(path);
    if (error) return write_failed(path, "rename", error);
    temporary_set = 0;
    return FX_OK;
}

/* The file is complete by now; where folders cannot be synced there is nothing to add. */
static void sync_folder(const char *path)
{
    char dir[PATH_MAX];
    split(path, dir);
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)fsync(fd);
    close(fd);
}

fx_status fx_output_commit(const char *path, int fd, bool overwrite)
{
    fx_status st = FX_OK;
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) st = write_failed(path, "sync", errno);
    if (close(fd) != 0 && st == FX_OK)
        st = write_failed(path, "close", errno); /* NFS reports a full disk here */
    if (st == FX_OK) st = publish(path, overwrite);
    if (st != FX_OK) {
        fx_output_cleanup();
        return st;
    }
    sync_folder(path);
    return FX_OK;
}
