/* The files of T5's tokenizer folder: spiece.model, tokenizer.json, tokenizer_config.json,
 * special_tokens_map.json (parts 0 to 3). What opens must encode. */
#include "tests/fuzz/encode.h"

FUZZ_TARGET(t5_files)
{
    static const char *const names[] = {"spiece.model", "tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json"};
    fx_t5_tokenizer *t = NULL;
    fuzz_write_parts(data, size, 4, names);
    if (fx_t5_tokenizer_open(fuzz_folder(), &t) != FX_OK) return 0;
    FUZZ_EXPECT(fx_t5_max_length(t) >= 1 && fx_t5_id_limit(t) >= 0);
    fuzz_t5_encode(t,
                   "a ab  b\xC3\xA9 \xEF\xAC\x81 e\xCC\x81 <extra_id_0></s> \xE2\x96\x81\xE2\x96\x81 ..... "
                   "\xF0\x9F\x98\x80",
                   16);
    fuzz_t5_encode(t, "abc abc a", 2);
    fuzz_t5_encode(t, "", 1);
    fx_t5_tokenizer_close(&t);
    return 0;
}
