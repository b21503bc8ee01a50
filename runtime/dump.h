/* --dump DIR: tensors of a run as .npy files, rows gathered to rank 0 in joint order. Names are those of
 * tests/goldens: ids_clip, ids_t5, clip_pooled, t5_out, noise, double_NN_txt, double_NN_img, single_NN,
 * noise_pred_00, latents_NN, vae_in, pixels, rgb8. */
#ifndef FX_DUMP_H
#define FX_DUMP_H

#include "parallel/comm.h"
#include "parallel/layout.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_dump {
    const char *dir; /* NULL: no dump */
    fx_backend *be;
    fx_comm *comm;
} fx_dump;

/* mine: this rank's rows range[rank] of a tensor of `rows` rows; contiguous. Collective. */
fx_status fx_dump_rows(const fx_dump *, const char *name, const fx_range range[], int64_t rows,
                       fx_tensor mine);
/* Rows of one segment, or of all (joint order). Collective. */
fx_status fx_dump_segment(const fx_dump *, const char *name, const fx_layout *, int segment, fx_tensor mine);
/* A contiguous tensor of the backend that every rank has; rank 0 writes. */
fx_status fx_dump_whole(const fx_dump *, const char *name, fx_tensor mine);
/* Host data that every rank has; rank 0 writes. */
fx_status fx_dump_host(const fx_dump *, const char *name, fx_tensor host);

#ifdef __cplusplus
}
#endif
#endif
