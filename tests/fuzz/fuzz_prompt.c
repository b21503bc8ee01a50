/* Prompts, with the small vocabularies of tests/goldens (both forms of each tokenizer's files). The first
 * byte is the length to encode to, the rest is the prompt. */
#include "tests/fuzz/encode.h"

#include <string.h>

static fx_clip_bpe *clip[2];
static fx_t5_tokenizer *t5[2];

static void open_all(void)
{
    static const char *const model[] = {"h4dev", "h6schnell"};
    const char *tests = getenv("FX_TESTS_DIR");
    char path[1024];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/goldens/%s/tokenizer", tests ? tests : FUZZ_TESTS_DIR, model[i]);
        FUZZ_EXPECT(fx_clip_bpe_open(path, &clip[i]) == FX_OK);
        snprintf(path, sizeof path, "%s/goldens/%s/tokenizer_2", tests ? tests : FUZZ_TESTS_DIR, model[i]);
        FUZZ_EXPECT(fx_t5_tokenizer_open(path, &t5[i]) == FX_OK);
    }
}

FUZZ_TARGET(prompt)
{
    if (!t5[1]) open_all();
    if (!size) return 0;
    char *prompt = malloc(size); /* exact, so that a read past its end is seen */
    FUZZ_EXPECT(prompt);
    memcpy(prompt, data + 1, size - 1);
    prompt[size - 1] = 0;
    for (int i = 0; i < 2; i++) {
        fuzz_clip_encode(clip[i], prompt, data[0]);
        fuzz_t5_encode(t5[i], prompt, data[0]);
    }
    free(prompt);
    return 0;
}
