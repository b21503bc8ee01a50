/* What the group that made a picture tells rank 0 of it, as bytes; and an order as options. */
#ifndef FX_LAUNCH_PICTURE_TOLD_H
#define FX_LAUNCH_PICTURE_TOLD_H

#include "launch/batch/batch.h"
#include "parallel/desk.h"

/* result: no rgb; its step times and rank reports lie in the bytes it was read from. */
typedef struct fx_told {
    fx_task task;
    fx_made made;
    fx_result result;
} fx_told;

/* On the first rank of a group; out->data is malloc'ed. FX_ENOMEM. */
fx_status fx_told_pack(const fx_task *, const fx_result *, const fx_made *, fx_desk_buffer *out);
/* FX_ESHAPE: not what pack made. data is aligned as malloc aligns. */
fx_status fx_told_read(const void *data, size_t bytes, fx_told *out);
/* The run's options with the values of one picture; the prompt is borrowed. */
fx_options fx_task_options(const fx_options *run, const fx_task *, const char *prompt);

#endif
