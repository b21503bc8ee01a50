/* The weight store: modules declare what they need, then one load fills it. Bytes live in one block per node
 * that all its ranks share where the backend allows (CPU): each tensor is read, converted and packed once per
 * node, by one of its ranks, in disjoint ranges. On devices every rank has the whole block, reads its range of it and gets the
 * others' from their devices (store_device.c).
 *
 *   fx_store_open(be, share, &store);
 *   dit declares: fx_store_linear(store, &w->q, ckpt, n, k, 1, &part, bias...) ...
 *   fx_store_load(store, comm, progress)   -> every declared fx_weight.packed / fx_tensor.data is valid
 *
 * Declared targets are kept by address until fx_store_load returns. */
#ifndef FX_PARALLEL_STORE_H
#define FX_PARALLEL_STORE_H

#include "kernels/ops.h"
#include "parallel/node_share.h"
#include "runtime/io/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_store fx_store;

/* A row range of one checkpoint tensor; rows = -1 means all. A weight may be made of several, stacked by
 * rows. */
typedef struct fx_part {
    const char *name; /* copied */
    int64_t row0, rows;
} fx_part;

fx_status fx_store_open(fx_backend *, const fx_share *share /* NULL: alone */, fx_store **out);
void fx_store_close(fx_store **);

/* Shapes are checked here, so that a bad file is refused before memory is taken. */
fx_status fx_store_linear(fx_store *, fx_checkpoint *, fx_weight *out, int64_t n, int64_t k, int parts,
                          const fx_part[]);
fx_status fx_store_conv(fx_store *, fx_checkpoint *, fx_weight *out, int64_t n, int64_t k, int kh, int kw,
                        const char *name);
/* f32 vector of n, stacked from parts; */
fx_status fx_store_vector(fx_store *, fx_checkpoint *, fx_tensor *out, int64_t n, int parts, const fx_part[]);
/* Row-major table [rows, cols] in the backend's dtype (embeddings); rows = -1: what the file has. f32: force
 * f32. */
fx_status fx_store_table(fx_store *, fx_checkpoint *, fx_tensor *out, int64_t rows, int64_t cols,
                         const char *name, bool f32);

bool fx_store_plain_rows(const fx_store *);   /* of its backend: kernels/ops.h */
size_t fx_store_bytes(const fx_store *);      /* packed bytes declared so far */
double fx_store_parameters(const fx_store *); /* values declared so far */
/* Collective over the share group, and over comm where the weights go to devices (NULL: alone; its rows are open:
 * comm_nccl.h). progress(ctx, done, total) is called now and then with this rank's bytes. */
fx_status fx_store_load(fx_store *, fx_comm *comm, void (*progress)(void *ctx, size_t done, size_t total),
                        void *ctx);
size_t fx_store_bytes_read(const fx_store *); /* file bytes this rank read */

#ifdef __cplusplus
}
#endif
#endif
