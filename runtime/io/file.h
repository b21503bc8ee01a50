/* Internal to runtime/io: small files read whole, and exact reads, with messages that name the path. */
#ifndef FX_IO_FILE_H
#define FX_IO_FILE_H

#include "runtime/core/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A regular file open for reading. FX_EREAD names path and reason. */
fx_status fx_file_open(const char *path, int *fd, uint64_t *size);
/* Exactly n bytes at offset; a file that ends before is FX_EREAD. */
fx_status fx_file_read_at(int fd, const char *path, uint64_t offset, void *dst, size_t n);
/* The whole file, with a zero byte after it; free(*data). FX_EFORMAT when larger than max_bytes or a git-lfs
 * pointer. */
fx_status fx_file_load(const char *path, size_t max_bytes, char **data, size_t *size);
/* FX_EFORMAT when the first bytes are those of a git-lfs pointer, which is what a clone without git-lfs
 * leaves. */
fx_status fx_file_refuse_lfs(const char *path, const char *head, size_t n, uint64_t file_size);
/* dir/component/name, component NULL or "" for none. FX_EINVAL when it does not fit. */
fx_status fx_file_join(char *out, size_t size, const char *dir, const char *component, const char *name);

#ifdef __cplusplus
}
#endif
#endif
