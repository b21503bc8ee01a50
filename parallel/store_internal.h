/* Inside the weight store: what was declared (store_declare.c) and what the load fills (store.c). */
#ifndef FX_PARALLEL_STORE_INTERNAL_H
#define FX_PARALLEL_STORE_INTERNAL_H

#include "parallel/store.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_STORE_PARTS = 8 }; /* most parts of one item */

typedef struct fx_store_piece {
    fx_entry entry;
    int64_t row0, rows;
} fx_store_piece;

typedef struct fx_store_item {
    fx_checkpoint *source;
    fx_store_piece pieces[FX_STORE_PARTS];
    int count;
    fx_weight *weight;      /* either this one, packed through the staging buffer, */
    fx_tensor *tensor;      /* or this one, read in place */
    fx_dtype dtype;         /* of the row-major form */
    size_t offset, bytes;   /* in the block */
    size_t row_major_bytes; /* before packing */
    int order;              /* of declaration */
} fx_store_item;

struct fx_store {
    fx_backend *be;
    fx_share share;
    fx_comm *comm; /* the job's, where the weights go to devices; NULL: alone */
    bool shared, loaded;
    fx_store_item *items;
    int count, capacity;
    size_t total;          /* bytes of the block */
    char *block, *staging; /* staging: row-major source of the item being packed */
    char *device;          /* the block on the backend's device, instead of in host memory */
    size_t half, chunk;    /* device: bytes of one of the two buffers; of rows read at once, by all threads */
    size_t staging_bytes;
    size_t bytes_read; /* several threads: atomic access only */
};

/* ---- store.c ---- */
size_t fx_store_row_bytes(const fx_store_item *); /* of the row-major form */
/* Which of so many ranks loads the item: ranks take consecutive items with about equal bytes. */
int fx_store_owner(const fx_store *, const fx_store_item *, int ranks);
/* Rows [begin, begin + count) of a piece, by all threads of the backend. */
fx_status fx_store_read_rows(fx_store *, const fx_store_item *, const fx_store_piece *, int64_t begin,
                             int64_t count, char *dst);

/* ---- store_device.c: fills s->device ---- */
fx_status fx_store_load_device(fx_store *, void (*progress)(void *, size_t, size_t), void *ctx);

#ifdef __cplusplus
}
#endif
#endif
