/* Second box of the dataflow: prompt -> ids -> encoder outputs on every rank. Tokenising is cheap and
 * deterministic, so every rank does it; the encoders are not computed P times. */
#include "runtime/text/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static fx_status open_tokenizers(const char *model_dir, fx_text *t)
{
    char dir[4096];
    snprintf(dir, sizeof dir, "%s/tokenizer", model_dir);
    FX_TRY(fx_clip_bpe_open(dir, &t->clip_bpe));
    snprintf(dir, sizeof dir, "%s/tokenizer_2", model_dir);
    FX_TRY(fx_t5_tokenizer_open(dir, &t->t5_tokenizer));
    t->clip_len = min_int(fx_clip_bpe_max_length(t->clip_bpe), t->clip_len);
    t->t5_len = min_int(fx_t5_max_length(t->t5_tokenizer), t->t5_len);
    /* A tokenizer may know fewer ids than the table has rows, never more that it can produce. */
    FX_CHECK(fx_clip_bpe_id_limit(t->clip_bpe) <= t->clip.cfg.vocab, FX_EFORMAT,
             "%s/tokenizer has ids up to %d but text_encoder has %lld rows; the files do not belong together",
             model_dir, fx_clip_bpe_id_limit(t->clip_bpe) - 1, (long long)t->clip.cfg.vocab);
    FX_CHECK(
        fx_t5_id_limit(t->t5_tokenizer) <= t->t5.cfg.vocab, FX_EFORMAT,
        "%s/tokenizer_2 has ids up to %d but text_encoder_2 has %lld rows; the files do not belong together",
        model_dir, fx_t5_id_limit(t->t5_tokenizer) - 1, (long long)t->t5.cfg.vocab);
    return FX_OK;
}

fx_status fx_text_open(const char *model_dir, bool synthetic, const fx_clip_config *clip,
                       const fx_t5_config *t5, fx_store *store, fx_checkpoint *ckpt_clip,
                       fx_checkpoint *ckpt_t5, fx_text *out)
{
    *out = (fx_text){.clip_len = (int)clip->positions, .t5_len = 512};
    FX_TRY(fx_clip_declare(clip, store, ckpt_clip, &out->clip));
    FX_TRY(fx_t5_declare(t5, store, ckpt_t5, &out->t5));
    return synthetic ? FX_OK : open_tokenizers(model_dir, out);
}

void fx_text_close(fx_text *t)
{
    fx_clip_free(&t->clip);
    fx_t5_free(&t->t5);
    fx_clip_bpe_close(&t->clip_bpe);
    fx_t5_tokenizer_close(&t->t5_tokenizer);
}

/* Synthetic models have no vocabulary: a word's id is a hash of its bytes (FNV-1a), within the table. */
static void hash_words(const char *text, int64_t vocab, int32_t eos, int32_t pad, int length, int32_t *ids)
{
    int n = 0;
    while (*text && n < length - 1) {
        uint64_t h = 0xcbf29ce484222325u;
        text += strspn(text, " \t\n");
        const size_t bytes = strcspn(text, " \t\n");
        for (size_t i = 0; i < bytes; i++) h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
        if (bytes) ids[n++] = (int32_t)(3 + h % (uint64_t)(vocab - 6));
        text += bytes;
    }
    ids[n++] = eos;
    while (n < length) ids[n++] = pad;
}

/* Ids index embedding tables: added tokens may be numbered past the vocabulary that open_tokenizers compared.
 */
static fx_status check_ids(const char *folder, const int32_t *ids, int count, int64_t rows)
{
    for (int i = 0; i < count; i++)
        FX_CHECK(ids[i] >= 0 && ids[i] < rows, FX_EFORMAT,
                 "%s gives token id %d but its encoder's embedding has %lld rows; the files do not belong "
                 "together",
                 folder, ids[i], (long long)rows);
    return FX_OK;
}

fx_status fx_text_tokenize(const fx_text *t, const char *prompt, int t5_len, fx_text_ids *out)
{
    int32_t used;
    *out = (fx_text_ids){.clip_count = t->clip_len, .t5_count = t5_len};
    out->clip = calloc((size_t)t->clip_len, sizeof *out->clip);
    out->t5 = calloc((size_t)t5_len, sizeof *out->t5);
    FX_CHECK(out->clip && out->t5, FX_ENOMEM, "no memory for %d token ids", t5_len);
    if (!t->clip_bpe) {
        const int32_t last = (int32_t)t->clip.cfg.vocab - 1;
        hash_words(prompt, t->clip.cfg.vocab, last, last, t->clip_len, out->clip);
        hash_words(prompt, t->t5.cfg.vocab, 1, 0, t5_len, out->t5);
        return FX_OK;
    }
    FX_TRY(fx_clip_bpe_encode(t->clip_bpe, prompt, t->clip_len, out->clip, &used, NULL));
    FX_TRY(fx_t5_encode(t->t5_tokenizer, prompt, t5_len, out->t5, &used, &out->cut));
    FX_TRY(check_ids("tokenizer", out->clip, t->clip_len, t->clip.cfg.vocab));
    return check_ids("tokenizer_2", out->t5, t5_len, t->t5.cfg.vocab);
}

void fx_text_ids_free(fx_text_ids *ids)
{
    free(ids->clip);
    free(ids->t5);
    free(ids->cut);
    *ids = (fx_text_ids){0};
}

/* What this rank makes of the two, to its end: what fails on a device shows here. */
static fx_status encode_mine(fx_backend *be, const fx_text *t, const fx_text_ids *ids, bool make_t5,
                             bool make_clip, fx_tensor t5, fx_tensor pooled)
{
    if (make_t5) FX_TRY(fx_t5_forward(be, &t->t5, ids->t5, ids->t5_count, t5));
    if (make_clip) FX_TRY(fx_clip_pool(be, &t->clip, ids->clip, ids->clip_count, pooled));
    return fx_sync(be);
}

fx_status fx_text_encode(fx_backend *be, fx_comm *comm, const fx_text *t, const fx_text_ids *ids,
                         fx_tensor t5, fx_tensor pooled)
{
    const int rank = fx_comm_rank(comm), t5_rank = 0, clip_rank = fx_comm_size(comm) > 1 ? 1 : 0;
    const fx_status st = encode_mine(be, t, ids, rank == t5_rank, rank == clip_rank, t5, pooled);
    FX_TRY(fx_comm_vote(comm, st, NULL));
    fx_comm *rows = fx_comm_rows(comm);
    FX_TRY(fx_comm_broadcast(rows, t5_rank, t5.data, fx_bytes(t5)));
    return fx_comm_broadcast(rows, clip_rank, pooled.data, fx_bytes(pooled));
}
