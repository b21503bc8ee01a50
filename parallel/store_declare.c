/* Declarations to the weight store: shapes are checked at once, no memory is taken; every item gets its place in the
 * block. Called by the models' weight files, before store.c loads. */
#include <stdlib.h>
#include <string.h>

#include "parallel/store_internal.h"

typedef fx_store_item item;
typedef fx_store_piece piece;

static fx_status new_item(fx_store *s, fx_checkpoint *source, fx_dtype dtype, item **out)
{
    FX_CHECK(!s->loaded, FX_ESHAPE, "store: declared after the load");
    if (s->count == s->capacity) {
        const int capacity = s->capacity ? 2 * s->capacity : 64;
        item *grown = realloc(s->items, (size_t)capacity * sizeof *grown);
        FX_CHECK(grown, FX_ENOMEM, "no memory for the weight store");
        s->items = grown;
        s->capacity = capacity;
    }
    *out = &s->items[s->count]; /* counted by place() once it is complete */
    memset(*out, 0, sizeof **out);
    (*out)->source = source;
    (*out)->dtype = dtype;
    (*out)->order = s->count;
    return FX_OK;
}

/* Gives the item its place at the end of the block. */
static void place(fx_store *s, item *it, size_t row_major_bytes, size_t bytes)
{
    it->row_major_bytes = row_major_bytes;
    it->bytes = bytes;
    it->offset = s->total;
    s->total += (size_t)fx_round_up((int64_t)bytes, FX_ARENA_ALIGN);
    s->count++;
}

/* One part: `rows` rows from part->row0 of a tensor whose other sizes are shape[1..]. */
static fx_status find_piece(item *it, const fx_part *part, int64_t rows, int ndim, const int64_t shape[],
                            piece *out)
{
    const bool whole = part->row0 == 0 && part->rows < 0, synthetic = fx_checkpoint_is_synthetic(it->source);
    int64_t want[FX_MAX_DIMS];
    memcpy(want, shape, (size_t)ndim * sizeof *want);
    want[0] = whole || synthetic ? part->row0 + rows
                                 : -1; /* a synthetic tensor is as large as what is asked of it */
    FX_TRY(fx_checkpoint_find(it->source, part->name, ndim, want, &out->entry));
    FX_CHECK(part->row0 >= 0 && part->row0 <= out->entry.shape[0] - rows, FX_EFORMAT,
             "tensor %s: wanted rows %lld to %lld, file has %lld rows", part->name, (long long)part->row0,
             (long long)(part->row0 + rows), (long long)out->entry.shape[0]);
    out->row0 = part->row0;
    out->rows = rows;
    return FX_OK;
}

/* Rows of a part that says -1: what the other parts leave, divided among those that say so. */
static fx_status open_rows(int64_t n, int parts, const fx_part part[], int64_t *out)
{
    int64_t left = n, open = 0;
    for (int i = 0; i < parts; i++) {
        if (part[i].rows < 0)
            open++;
        else
            left -= part[i].rows;
    }
    FX_CHECK(left >= 0 && (open ? left % open == 0 : left == 0), FX_ESHAPE,
             "store: the parts of %s do not add up to %lld rows", part[0].name, (long long)n);
    *out = open ? left / open : 0;
    return FX_OK;
}

/* All parts of one item stacked by rows; shape[0] is n. */
static fx_status find_pieces(item *it, int parts, const fx_part part[], int ndim, const int64_t shape[])
{
    int64_t open = 0;
    FX_CHECK(parts >= 1 && parts <= FX_STORE_PARTS, FX_ESHAPE, "store: %d parts; at most %d", parts,
             FX_STORE_PARTS);
    for (int d = 0; d < ndim; d++)
        FX_CHECK(shape[d] > 0, FX_EFORMAT, "tensor %s: size %d of its shape is %lld; wanted at least 1",
                 part[0].name, d, (long long)shape[d]);
    FX_TRY(open_rows(shape[0], parts, part, &open));
    for (int i = 0; i < parts; i++)
        FX_TRY(find_piece(it, &part[i], part[i].rows < 0 ? open : part[i].rows, ndim, shape, &it->pieces[i]));
    it->count = parts;
    return FX_OK;
}

static fx_status declare_weight(fx_store *s, fx_checkpoint *source, fx_weight *out, fx_weight w, int parts,
                                const fx_part part[])
{
    const int64_t shape[4] = {w.n, w.k, w.kh, w.kw};
    item *it = NULL;
    *out = w;
    FX_TRY(new_item(s, source, w.dtype, &it));
    FX_TRY(find_pieces(it, parts, part, w.kind == FX_WEIGHT_CONV ? 4 : 2, shape));
    it->weight = out;
    place(s, it, (size_t)(w.n * w.k * w.kh * w.kw) * fx_dtype_size(w.dtype), fx_packed_bytes(s->be, &w));
    return FX_OK;
}

static fx_status declare_tensor(fx_store *s, fx_checkpoint *source, fx_tensor *out, fx_tensor view, int parts,
                                const fx_part part[])
{
    item *it = NULL;
    *out = view;
    FX_TRY(new_item(s, source, view.dtype, &it));
    FX_TRY(find_pieces(it, parts, part, view.ndim, view.shape));
    it->tensor = out;
    place(s, it, fx_bytes(view), fx_bytes(view));
    return FX_OK;
}

fx_status fx_store_linear(fx_store *s, fx_checkpoint *source, fx_weight *out, int64_t n, int64_t k, int parts,
                          const fx_part part[])
{
    const fx_weight w = {NULL, n, k, 1, 1, FX_WEIGHT_LINEAR, s->be->dtype};
    return declare_weight(s, source, out, w, parts, part);
}

fx_status fx_store_conv(fx_store *s, fx_checkpoint *source, fx_weight *out, int64_t n, int64_t k, int kh,
                        int kw, const char *name)
{
    const fx_weight w = {NULL, n, k, kh, kw, FX_WEIGHT_CONV, s->be->dtype};
    const fx_part all = {name, 0, -1};
    return declare_weight(s, source, out, w, 1, &all);
}

fx_status fx_store_vector(fx_store *s, fx_checkpoint *source, fx_tensor *out, int64_t n, int parts,
                          const fx_part part[])
{
    return declare_tensor(s, source, out, fx_view1(NULL, FX_F32, n), parts, part);
}

fx_status fx_store_table(fx_store *s, fx_checkpoint *source, fx_tensor *out, int64_t rows, int64_t cols,
                         const char *name, bool f32)
{
    const int64_t shape[2] = {rows, cols};
    const fx_part all = {name, 0, -1};
    fx_entry found;
    FX_TRY(fx_checkpoint_find(source, name, 2, shape, &found)); /* fills in rows = -1 */
    const fx_tensor view = fx_view(NULL, f32 ? FX_F32 : s->be->dtype, 2, found.shape);
    return declare_tensor(s, source, out, view, 1, &all);
}
