/* Declares linear layers to the weight store by checkpoint name. Used by every model part when it lists its
 * weights. */
#include "parallel/dense.h"

#include <stdio.h>

enum { MAX_PARTS = 4 };

static fx_status join(char out[FX_NAME_MAX], const char *prefix, const char *suffix, const char *kind)
{
    const int n = snprintf(out, FX_NAME_MAX, "%s%s%s", prefix, suffix, kind);
    FX_CHECK(n > 0 && n < FX_NAME_MAX, FX_ESHAPE, "tensor name %s%s%s is too long", prefix, suffix, kind);
    return FX_OK;
}

/* The files' tensors PREFIX + part + kind, one below the other in the matrix or vector. */
typedef struct part_list {
    char name[MAX_PARTS][FX_NAME_MAX];
    fx_part part[MAX_PARTS];
    int count;
} part_list;

static fx_status list_parts(part_list *l, const char *prefix, const char *const parts[], const char *kind)
{
    for (l->count = 0; l->count < MAX_PARTS && parts[l->count]; l->count++) {
        FX_TRY(join(l->name[l->count], prefix, parts[l->count], kind));
        l->part[l->count] = (fx_part){l->name[l->count], 0, -1};
    }
    return FX_OK;
}

fx_status fx_declare_dense(fx_store *store, fx_checkpoint *ckpt, fx_dense *out, int64_t n, int64_t k,
                           bool bias, const char *prefix, const char *const parts[])
{
    part_list list;
    FX_TRY(list_parts(&list, prefix, parts, ".weight"));
    FX_TRY(fx_store_linear(store, ckpt, &out->w, n, k, list.count, list.part));
    out->b = fx_none();
    if (!bias) return FX_OK;
    FX_TRY(list_parts(&list, prefix, parts, ".bias"));
    return fx_store_vector(store, ckpt, &out->b, n, list.count, list.part);
}

fx_status fx_declare_dense1(fx_store *store, fx_checkpoint *ckpt, fx_dense *out, int64_t n, int64_t k,
                            bool bias, const char *prefix, const char *suffix)
{
    const char *const parts[] = {suffix, NULL};
    return fx_declare_dense(store, ckpt, out, n, k, bias, prefix, parts);
}

fx_status fx_declare_dense_rows(fx_store *store, fx_checkpoint *ckpt, fx_dense *out, int64_t row0, int64_t n,
                                int64_t k, bool bias, const char *prefix, const char *suffix)
{
    char name[FX_NAME_MAX];
    const fx_part part = {name, row0, n};
    FX_TRY(join(name, prefix, suffix, ".weight"));
    FX_TRY(fx_store_linear(store, ckpt, &out->w, n, k, 1, &part));
    out->b = fx_none();
    if (!bias) return FX_OK;
    FX_TRY(join(name, prefix, suffix, ".bias"));
    return fx_store_vector(store, ckpt, &out->b, n, 1, &part);
}

fx_status fx_declare_vector(fx_store *store, fx_checkpoint *ckpt, fx_tensor *out, int64_t n,
                            const char *prefix, const char *suffix)
{
    char name[FX_NAME_MAX];
    FX_TRY(join(name, prefix, suffix, ""));
    const fx_part part = {name, 0, -1};
    return fx_store_vector(store, ckpt, out, n, 1, &part);
}

fx_status fx_dense_apply(fx_backend *be, fx_tensor y, fx_tensor x, const fx_dense *d, fx_act act)
{
    return fx_linear(be, y, x, d->w, d->b, act);
}

fx_status fx_dense_apply_part(fx_backend *be, fx_tensor y, fx_tensor x, const fx_dense_pair *d, int i,
                              fx_act act)
{
    if (!d->whole.w.n) return fx_dense_apply(be, y, x, &d->part[i], act);
    const int64_t row = i ? d->n[0] : 0;
    fx_weight w = d->whole.w;
    w.n = row;
    const size_t before = fx_packed_bytes(be, &w);
    w.n = d->n[i];
    if (w.packed) w.packed = (const char *)w.packed + before;
    return fx_linear(be, y, x, w, fx_present(d->whole.b) ? fx_rows(d->whole.b, row, w.n) : fx_none(), act);
}
