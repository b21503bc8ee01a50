/* The store of embedded prompts; see kept.h. Few and large entries, so they are searched one by one. */
#include "runtime/text/kept.h"

#include <stdlib.h>
#include <string.h>

typedef struct entry {
    char *data; /* t5, pooled, prompt with its zero byte; NULL: an empty place */
    int64_t rows, width, pooled_width;
    fx_dtype dtype;
    size_t t5_bytes, pooled_bytes, bytes;
    uint64_t used; /* when, counted in uses */
} entry;

struct fx_text_kept {
    size_t most, bytes;
    uint64_t uses;
    entry all[FX_TEXTS_KEPT];
};

fx_status fx_text_kept_open(size_t most_bytes, fx_text_kept **out)
{
    *out = calloc(1, sizeof **out);
    FX_CHECK(*out, FX_ENOMEM, "no memory for embedded prompts");
    (*out)->most = most_bytes;
    return FX_OK;
}

static void drop(fx_text_kept *k, entry *e)
{
    free(e->data);
    k->bytes -= e->bytes;
    *e = (entry){0};
}

void fx_text_kept_close(fx_text_kept **kept)
{
    if (!*kept) return;
    for (int i = 0; i < FX_TEXTS_KEPT; i++) drop(*kept, &(*kept)->all[i]);
    free(*kept);
    *kept = NULL;
}

static entry *find(const fx_text_kept *k, const char *prompt, fx_tensor t5, fx_tensor pooled)
{
    for (int i = 0; i < FX_TEXTS_KEPT; i++) {
        const entry *e = &k->all[i];
        if (e->data && e->rows == t5.shape[0] && e->width == t5.shape[1] && e->dtype == t5.dtype &&
            e->pooled_width == pooled.shape[1] && !strcmp(e->data + e->t5_bytes + e->pooled_bytes, prompt))
            return (entry *)(uintptr_t)e;
    }
    return NULL;
}

bool fx_text_kept_has(const fx_text_kept *k, const char *prompt, fx_tensor t5, fx_tensor pooled)
{
    return find(k, prompt, t5, pooled) != NULL;
}

fx_status fx_text_kept_fetch(fx_text_kept *k, fx_backend *be, const char *prompt, fx_tensor t5,
                             fx_tensor pooled)
{
    entry *e = find(k, prompt, t5, pooled);
    FX_CHECK(e, FX_ESHAPE, "this prompt is not kept");
    e->used = ++k->uses;
    FX_TRY(fx_upload(be, t5, e->data));
    return fx_upload(be, pooled, e->data + e->t5_bytes);
}

/* An empty place with room for so many bytes more, or NULL when they never fit. */
static entry *make_room(fx_text_kept *k, size_t bytes)
{
    if (bytes > k->most) return NULL;
    for (;;) {
        entry *empty = NULL, *oldest = NULL;
        for (int i = 0; i < FX_TEXTS_KEPT; i++) {
            entry *e = &k->all[i];
            if (!e->data)
                empty = e;
            else if (!oldest || e->used < oldest->used)
                oldest = e;
        }
        if (empty && k->bytes + bytes <= k->most) return empty;
        drop(k, oldest);
    }
}

fx_status fx_text_kept_keep(fx_text_kept *k, fx_backend *be, const char *prompt, fx_tensor t5,
                            fx_tensor pooled)
{
    const size_t t5_bytes = fx_bytes(t5), pooled_bytes = fx_bytes(pooled), length = strlen(prompt) + 1;
    const size_t bytes = t5_bytes + pooled_bytes + length;
    entry *e = find(k, prompt, t5, pooled);
    if (e) drop(k, e); /* another rank had lost it */
    e = make_room(k, bytes);
    char *data = e ? malloc(bytes) : NULL;
    if (!data) return FX_OK;
    fx_status st = fx_download(be, data, t5);
    if (!st) st = fx_download(be, data + t5_bytes, pooled);
    if (st) {
        free(data);
        return st;
    }
    memcpy(data + t5_bytes + pooled_bytes, prompt, length);
    *e = (entry){.data = data,
                 .rows = t5.shape[0],
                 .width = t5.shape[1],
                 .pooled_width = pooled.shape[1],
                 .dtype = t5.dtype,
                 .t5_bytes = t5_bytes,
                 .pooled_bytes = pooled_bytes,
                 .bytes = bytes,
                 .used = ++k->uses};
    k->bytes += bytes;
    return FX_OK;
}

size_t fx_text_kept_bytes(const fx_text_kept *k)
{
    return k->bytes;
}
