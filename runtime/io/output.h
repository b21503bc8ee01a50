/* Internal to runtime/io: a file that appears under its name only when it is complete. */
#ifndef FX_IO_OUTPUT_H
#define FX_IO_OUTPUT_H

#include "runtime/core/status.h"
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Refuses a path that cannot become a new file there (see fx_png_check_output). */
fx_status fx_output_check(const char *path, bool overwrite);
/* Creates .<name>.fluxpar-<pid>.tmp beside path. One output at a time per process. */
fx_status fx_output_begin(const char *path, int *fd);
/* Syncs and closes fd, gives the file its name, syncs the folder. On failure the temporary file is gone. */
fx_status fx_output_commit(const char *path, int fd, bool overwrite);
/* Closes fd and removes the temporary file. */
void fx_output_abort(int fd);
/* Removes the temporary file, if any. Async-signal-safe. */
void fx_output_cleanup(void);
/* Removes what killed processes left of a file: its temporary names, whatever their process. Returns how many there were. For
 * those who know that nobody writes it now. */
int fx_output_sweep(const char *path);

#ifdef __cplusplus
}
#endif
#endif
