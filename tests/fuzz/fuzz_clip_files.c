/* The files of CLIP's tokenizer folder: vocab.json, merges.txt, tokenizer.json, tokenizer_config.json,
 * special_tokens_map.json (parts 0 to 4). What opens must encode. */
#include "tests/fuzz/encode.h"

FUZZ_TARGET(clip_files)
{
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json"};
    fx_clip_bpe *t = NULL;
    fuzz_write_parts(data, size, 5, names);
    if (fx_clip_bpe_open(fuzz_folder(), &t) != FX_OK) return 0;
    FUZZ_EXPECT(fx_clip_bpe_max_length(t) >= 2 && fx_clip_bpe_id_limit(t) >= 0);
    fuzz_clip_encode(t, "abab ab <|endoftext|> a\xC3\xA9<|STARTOFTEXT|>'s 12 \xE2\x96\x81", 16);
    fuzz_clip_encode(t, "  a  <pad>b bbb", 2);
    fuzz_clip_encode(t, "", 8);
    fx_clip_bpe_close(&t);
    return 0;
}
