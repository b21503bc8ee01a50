/* Calls of both tokenizers with everything checked that holds for any vocabulary and prompt. */
#ifndef FX_FUZZ_ENCODE_H
#define FX_FUZZ_ENCODE_H

#include "runtime/text/tokenizer.h"
#include "tests/fuzz/fuzz.h"

enum { FUZZ_IDS_MAX = 512 };

static inline void fuzz_clip_encode(const fx_clip_bpe *t, const char *prompt, int32_t length)
{
    int32_t ids[FUZZ_IDS_MAX], used = -1, cut = -1;
    const fx_status st = fx_clip_bpe_encode(t, prompt, length, ids, &used, &cut);
    FUZZ_EXPECT(st != FX_OK || (used >= 2 && used <= length && cut >= 0 && (!cut || used == length)));
    for (int32_t i = 0; st == FX_OK && i < length; i++) FUZZ_EXPECT(ids[i] >= 0);
}

static inline void fuzz_t5_encode(const fx_t5_tokenizer *t, const char *prompt, int32_t length)
{
    int32_t ids[FUZZ_IDS_MAX], used = -1;
    char *cut = NULL;
    const fx_status st = fx_t5_encode(t, prompt, length, ids, &used, &cut);
    FUZZ_EXPECT(st != FX_OK || (used >= 1 && used <= length && (!cut || used == length)));
    for (int32_t i = 0; st == FX_OK && i < length; i++) FUZZ_EXPECT(ids[i] >= 0);
    free(cut);
}

#endif
