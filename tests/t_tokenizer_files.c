/* Tokenizer folders that are incomplete, damaged or ask for what is not implemented: one clear message, never
 * a crash; and folders that say the same in other words: tokenizer.json for raw files, with and without
 * config files. */
#include "tests/scratch.h"
#include "tests/test.h"

#include "runtime/text/tokenizer.h"
#include "runtime/text/tokenizer_json.h"
#include "runtime/text/unigram_model.h"

/* A BPE with four letters and two merges; the T5 twin below has seven pieces. */
static const char vocab[] =
    "{\"a\":0,\"b\":1,\"c\":2,\"a</w>\":3,\"b</w>\":4,\"c</w>\":5,\"ab\":6,\"abc</w>\":7,"
    "\"<|startoftext|>\":8,\"<|endoftext|>\":9}";
static const char merges[] = "#version: 0.2\na b\nab c</w>\n";
static const char bpe_json[] =
    "{\"added_tokens\":[{\"id\":8,\"content\":\"<|startoftext|>\",\"normalized\":true,\"special\":true},"
    "{\"id\":9,\"content\":\"<|endoftext|>\",\"normalized\":false,\"special\":true}],"
    "\"post_processor\":{\"type\":\"RobertaProcessing\",\"sep\":[\"<|endoftext|>\",9],"
    "\"cls\":[\"<|startoftext|>\",8]},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":%s,\"merges\":%s}}";
static const char unigram_json[] =
    "{\"added_tokens\":[],\"normalizer\":%s,\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
    "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"</s>\"}}],"
    "\"special_tokens\":{\"</s>\":{\"ids\":[1]}}},\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":"
    "[[\"<pad>\",0],[\"</s>\",0],[\"<unk>\",0],[\"\xE2\x96\x81\",-2.0],[\"a\",-3.0],[\"b\",-3.5],"
    "[\"\xE2\x96\x81\x61\x62\",-4.0]]}}"; /* the last piece is the mark and "ab" */

static char dir[1024];

static const char *fresh(void)
{
    static int n;
    snprintf(dir, sizeof dir, "%s", in_scratch("d%d", n++));
    mkdir(dir, 0700);
    return dir;
}

static void put(const char *name, const char *text)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    put_text(path, text);
}

static fx_status clip_ids(const char *prompt, int32_t *ids, int32_t *used)
{
    fx_clip_bpe *t = NULL;
    fx_status st = fx_clip_bpe_open(dir, &t);
    if (st == FX_OK) st = fx_clip_bpe_encode(t, prompt, 12, ids, used, NULL);
    fx_clip_bpe_close(&t);
    return st;
}

static fx_status t5_ids(const char *prompt, int32_t *ids, int32_t *used)
{
    fx_t5_tokenizer *t = NULL;
    fx_status st = fx_t5_tokenizer_open(dir, &t);
    if (st == FX_OK) st = fx_t5_encode(t, prompt, 12, ids, used, NULL);
    fx_t5_tokenizer_close(&t);
    return st;
}

/* used is a pointer: the call that sets it is an argument beside it. */
static void expect(const char *what, fx_status st, const int32_t *ids, const int32_t *used, int32_t n,
                   const int32_t *want)
{
    T_CHECK(st == FX_OK, "%s: %s", what, fx_error());
    T_CHECK(st == FX_OK && *used == n && !memcmp(ids, want, (size_t)n * sizeof *ids), "%s: other ids", what);
}

static void put_json(const char *format, const char *a, const char *b)
{
    char text[4096];
    snprintf(text, sizeof text, format, a, b);
    put("tokenizer.json", text);
}

static void raw_clip(void)
{
    fresh();
    put("vocab.json", vocab);
    put("merges.txt", merges);
}

static void t_clip_folders(void)
{
    const int32_t plain[] = {8, 7, 3, 9}, upper[] = {8, 8, 7, 9}, unknown[] = {8, 9, 4, 9};
    int32_t ids[12], used = 0;
    raw_clip();
    expect("raw files", clip_ids("ABC a", ids, &used), ids, &used, 4, plain);
    expect("a byte outside the vocabulary", clip_ids("zb", ids, &used), ids, &used, 4, unknown);
    put("tokenizer_config.json",
        "{\"model_max_length\": 1e30, \"added_tokens_decoder\": {\"8\": {\"content\": "
        "\"<|startoftext|>\", \"normalized\": true, \"special\": true}}}");
    expect("normalized special", clip_ids("<|StartOfText|>abc", ids, &used), ids, &used, 4, upper);
    put("merges.txt", "#version: 0.2\r\na b\r\nab c</w>\r\n");
    expect("lines that end as on Windows", clip_ids("ABC a", ids, &used), ids, &used, 4, plain);
    put("vocab.json",
        "{\"a\":0,\"\u00e1\":1,\"\u00b2\":2,\"\u012c</w>\":3,\"<|startoftext|>\":8,\"<|endoftext|>\":9}");
    put("merges.txt", "#version: 0.2\n");
    T_OK(clip_ids("\xE1\xB2\x89", ids, &used));
    T_CHECK(used == 5 && ids[1] == 1 && ids[2] == 2 && ids[3] == 3, "U+1C89 becomes U+1C8A: %d ids", used);
    put("vocab.json", vocab);
    put("merges.txt", merges);
    fx_clip_bpe *t = NULL;
    T_OK(fx_clip_bpe_open(dir, &t));
    T_CHECK(t && fx_clip_bpe_max_length(t) == INT32_MAX, "1e30 means no limit");
    fx_clip_bpe_close(&t);
    fresh();
    put_json(bpe_json, vocab, "[\"a b\", \"ab c</w>\"]");
    expect("tokenizer.json, merges as text", clip_ids("abc a", ids, &used), ids, &used, 4, plain);
    expect("its own table of added tokens", clip_ids("<|STARTOFTEXT|>abc", ids, &used), ids, &used, 4, upper);
    put_json(bpe_json, vocab, "[[\"a\", \"b\"], [\"ab\", \"c</w>\"]]");
    expect("tokenizer.json, merges as pairs", clip_ids("abc a", ids, &used), ids, &used, 4, plain);
}

/* A merge of n letters and one: its result may have 1024 bytes. */
static fx_status long_merge(int n, int32_t *ids, int32_t *used)
{
    static char letters[1100], text[4096];
    memset(letters, 'x', (size_t)n);
    letters[n] = 0;
    snprintf(text, sizeof text,
             "{\"a\":0,\"%s\":1,\"%sa\":2,\"a</w>\":3,\"<|startoftext|>\":8,\"<|endoftext|>\":9}", letters,
             letters);
    put("vocab.json", text);
    snprintf(text, sizeof text, "#version: 0.2\n%s a\n", letters);
    put("merges.txt", text);
    return clip_ids("a", ids, used);
}

static void t_clip_refusals(void)
{
    int32_t ids[12], used;
    fresh();
    T_REFUSED(clip_ids("a", ids, &used), FX_EREAD, "merges.txt", "tokenizer.json");
    put("vocab.json", vocab);
    T_REFUSED(clip_ids("a", ids, &used), FX_EREAD, "merges.txt");
    put("merges.txt", "a b\nabc\n");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "merges.txt", "merge 2");
    put("merges.txt", "a b\nb c\n");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "merge 2", "not in the vocabulary");
    T_OK(long_merge(1023, ids, &used));
    T_REFUSED(long_merge(1024, ids, &used), FX_EFORMAT, "merges.txt", "overlong part");
    put("vocab.json", vocab);
    put("merges.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "merges.txt", "git-lfs");
    put("merges.txt", merges);
    put("vocab.json", "{\"a\": -1}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "vocab.json", "no valid id");
    put("vocab.json", "[1, 2]");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "vocab.json");
    raw_clip();
    put("tokenizer_config.json", "{\"padding_side\": \"left\"}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "padding_side", "left");
    put("tokenizer_config.json", "{\"truncation_side\": \"left\"}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "truncation_side", "left");
    put("tokenizer_config.json", "{\"add_bos_token\": true}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "add_bos_token");
    put("tokenizer_config.json", "{\"add_eos_token\": false}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "add_eos_token");
    put("tokenizer_config.json", "{\"model_max_length\": \"77\"}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "model_max_length");
    put("tokenizer_config.json", "{\"bos_token\": {\"content\": \"x\", \"single_word\": true}}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "single_word");
    put("tokenizer_config.json", "{\"bos_token\": 3}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "bos_token");
    put("tokenizer_config.json", "{\"bos_token\": \"\"}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "an empty bos, eos or pad token");
    put("tokenizer_config.json", "{\"eos_token\": \"\"}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "an empty bos, eos or pad token");
    put("tokenizer_config.json", "{\"pad_token\": \"\"}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "an empty bos, eos or pad token");
    fresh();
    put("tokenizer.json", "{\"added_tokens\": [], \"model\": {\"type\": \"WordPiece\", \"vocab\": {}}}");
    T_REFUSED(clip_ids("a", ids, &used), FX_EFORMAT, "WordPiece");
}

static void t_t5_folders(void)
{
    const int32_t plain[] = {6, 3, 4, 1}, unknown[] = {3, 2, 4, 1}, extra[] = {6, 7, 1};
    int32_t ids[12], used = 0;
    fresh();
    put_json(unigram_json, "null", "");
    expect("tokenizer.json", t5_ids("ab a", ids, &used), ids, &used, 4, plain);
    expect("unknown characters in a row", t5_ids("xyza", ids, &used), ids, &used, 4, unknown);
    expect("extra ids go on after the vocabulary", t5_ids("ab<extra_id_0>", ids, &used), ids, &used, 3,
           extra);
    char more[sizeof unigram_json + 40]; /* empty pieces are no part of any text */
    snprintf(more, sizeof more, "%.*s,[\"\",-1.0],[\"\",-1.5]]}}", (int)(sizeof unigram_json - 4),
             unigram_json);
    put_json(more, "null", "");
    expect("empty pieces", t5_ids("ab a", ids, &used), ids, &used, 4, plain);
    put_json(unigram_json, "null", "");
    put("tokenizer_config.json", "{\"extra_ids\": 0}");
    T_OK(t5_ids("<extra_id_0>", ids, &used));
    T_CHECK(used == 5 && ids[0] == 3 && ids[1] == 2 && ids[2] == 4,
            "no extra ids: ordinary text with an a in it");
}

/* A character map that makes an a of an A: tokens matched in normalised text are found in either form, and those
 * that are not only as they are written. */
static void t_t5_normalized_tokens(void)
{
    const int32_t found[] = {6, 7, 1}, other[] = {8, 1}, text[] = {3, 2, 4, 2, 1};
    int32_t ids[12], used = 0;
    fresh();
    put_json(unigram_json,
             "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"EAAAAAAAAQBBDQAAAAAAgAAAAABhAA==\"}",
             "");
    put("tokenizer_config.json",
        "{\"extra_ids\": 0, \"added_tokens_decoder\": {"
        "\"7\": {\"content\": \"<A>\", \"normalized\": true, \"special\": false},"
        "\"8\": {\"content\": \"[A]\", \"normalized\": false, \"special\": false}}}");
    expect("as it is written", t5_ids("Ab<A>", ids, &used), ids, &used, 3, found);
    expect("as the map writes it", t5_ids("ab<a>", ids, &used), ids, &used, 3, found);
    expect("not normalised, as it is written", t5_ids("[A]", ids, &used), ids, &used, 2, other);
    expect("not normalised, as the map writes it", t5_ids("[a]", ids, &used), ids, &used, 5, text);
    put_json(unigram_json,
             "{\"normalizers\": [{\"precompiled_charsmap\": \"*\"}, {\"type\": \"Precompiled\"}, {\"type\": "
             "\"Other\", "
             "\"precompiled_charsmap\": \"*\"}, {\"type\": \"Precompiled\", \"precompiled_charsmap\": "
             "\"EAAAAAAAAQBBDQAAAAAAgAAAAABhAA==\"}, {\"type\": \"Precompiled\", \"precompiled_charsmap\": "
             "\"*\"}]}",
             "");
    expect("the first map of that type", t5_ids("ab<a>", ids, &used), ids, &used, 3, found);
}

static void t_t5_refusals(void)
{
    int32_t ids[12], used;
    fresh();
    T_REFUSED(t5_ids("a", ids, &used), FX_EREAD, "spiece.model", "tokenizer.json");
    put("spiece.model", "");
    T_REFUSED(t5_ids("a", ids, &used), FX_EFORMAT, "spiece.model", "empty");
    put("spiece.model", "version https://git-lfs.github.com/spec/v1\n");
    T_REFUSED(t5_ids("a", ids, &used), FX_EFORMAT, "git-lfs");
    put("spiece.model", "\x0A\x7F short");
    T_REFUSED(t5_ids("a", ids, &used), FX_EFORMAT, "spiece.model", "127 bytes, only 6 left", "truncated");
    put("spiece.model", "\x12\x02\x18\x02"); /* trainer_spec.model_type = BPE */
    T_REFUSED(t5_ids("a", ids, &used), FX_EFORMAT, "model_type 2");
    fresh();
    put_json(unigram_json, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"*\"}", "");
    T_REFUSED(t5_ids("a", ids, &used), FX_EFORMAT, "base64");
    put_json(unigram_json, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"/////w==\"}", "");
    T_REFUSED(t5_ids("a", ids, &used), FX_EFORMAT, "precompiled_charsmap");
    put_json(unigram_json, "null", "");
    put("tokenizer_config.json", "{\"eos_token\": \"\"}");
    T_REFUSED(t5_ids("a", ids, &used), FX_EFORMAT, "an empty eos or pad token");
    put("tokenizer_config.json", "{\"pad_token\": \"\"}");
    T_REFUSED(t5_ids("a", ids, &used), FX_EFORMAT, "an empty eos or pad token");
}

/* A real spiece.model with bytes changed or cut off at many places: any status, no crash, valid ids. */
static void t_damaged_model(void)
{
    const char *root = getenv("FX_TESTS_DIR");
    char path[1200];
    static unsigned char bytes[1 << 20], copy[1 << 20];
    snprintf(path, sizeof path, "%s/goldens/h4dev/tokenizer_2/spiece.model", root ? root : "tests");
    FILE *f = fopen(path, "rb");
    const size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f) fclose(f);
    T_CHECK(n > 1000, "%s: cannot read", path);
    fresh();
    snprintf(path, sizeof path, "%s/spiece.model", dir);
    uint64_t rng = 17;
    int opened = 0;
    for (int round = 0; n && round < 300; round++) {
        int32_t ids[12], used = 0;
        memcpy(copy, bytes, n);
        size_t keep = n;
        for (int k = 0; k < 1 + round % 4; k++) {
            rng = rng * 6364136223846793005u + 1442695040888963407u;
            copy[(rng >> 33) % (round % 2 ? n : 4096 < n ? 4096 : n)] ^= (unsigned char)(rng >> 20);
        }
        if (round % 3 == 0) keep = (rng >> 33) % n;
        put_file(path, copy, keep);
        const fx_status st =
            t5_ids("A \xEF\xBC\xA1\xCC\x81 painted \xE2\x84\xA2 f\xC3\xB6x ....", ids, &used);
        T_CHECK(st == FX_OK || st == FX_EFORMAT, "round %d: %s %s", round, fx_status_name(st), fx_error());
        opened += st == FX_OK;
    }
    T_CHECK(opened > 0, "no damaged model opened: the test changes too much");
}

/* All 64 signs of base64, as a character map is written in tokenizer.json. */
static void t_base64(void)
{
    unsigned char all[48];
    fx_unigram m = {0};
    fx_tokenizer_files files;
    for (int i = 0; i < 16; i++) { /* the numbers 0 to 63, six bits each */
        const unsigned four = (unsigned)(4 * i) << 18 | (unsigned)(4 * i + 1) << 12 |
                              (unsigned)(4 * i + 2) << 6 | (unsigned)(4 * i + 3);
        for (int k = 0; k < 3; k++) all[3 * i + k] = (unsigned char)(four >> (16 - 8 * k));
    }
    fresh();
    put_json(unigram_json,
             "{\"type\": \"Precompiled\", \"precompiled_charsmap\": "
             "\"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/\"}",
             "");
    T_OK(fx_tokenizer_files_open(dir, (const char *const[]){"spiece.model", NULL}, &files));
    T_OK(fx_unigram_read_json(&m, &files));
    T_CHECK(m.charsmap.len == sizeof all && !memcmp(m.charsmap.data, all, sizeof all), "base64: other bytes");
    fx_unigram_free(&m);
    fx_tokenizer_files_close(&files);
}

/* The score of a piece to its last bit; its type is read whatever comes first. */
static void t_score(void)
{
    fx_unigram m = {0};
    char path[1200];
    fresh();
    snprintf(path, sizeof path, "%s/spiece.model", dir);
    put("spiece.model", "\x0A\x0A\x18\x04\x15\x04\x03\x02\x41\x0A\x01\x61");
    T_OK(fx_unigram_read(&m, path));
    T_CHECK(m.count == 1 && m.piece[0].score == 0x1.040608p3 && m.piece[0].len == 1 && m.piece[0].type == 4,
            "%d pieces, score %a", m.count, m.count ? m.piece[0].score : 0);
    fx_unigram_free(&m);
}

/* Pieces that spiece.model marks as control or user-defined are tokens of their own, whole. */
static void t_marked_pieces(void)
{
    const int32_t want[] = {3, 4, 6, 3, 5, 1};
    int32_t ids[12], used = 0;
    fresh();
    put("spiece.model",
        "\x0A\x09\x0A\x05<pad>\x18\x03\x0A\x08\x0A\x04</s>\x18\x03\x0A\x09\x0A\x05<unk>\x18\x02"
        "\x0A\x05\x0A\x03\xE2\x96\x81\x0A\x03\x0A\x01\x61\x0A\x03\x0A\x01\x62\x0A\x07\x0A\x03<x>\x18\x04");
    put("tokenizer_config.json", "{\"extra_ids\": 0}");
    expect("a user-defined piece", t5_ids("a<x>b", ids, &used), ids, &used, 6, want);
}

/* A word that begins with a piece of one byte: here words do not begin with the mark. */
static void t_bare_word(void)
{
    fx_unigram m = {0};
    fx_tokenizer_files files;
    fx_unigram_scratch scratch_words = {0};
    fx_ids ids = {0};
    fresh();
    put_json(unigram_json, "null", "");
    T_OK(fx_tokenizer_files_open(dir, (const char *const[]){"spiece.model", NULL}, &files));
    T_OK(fx_unigram_read_json(&m, &files));
    T_OK(fx_unigram_finish(&m));
    T_OK(fx_unigram_encode(&m, "ab", 2, &scratch_words, &ids));
    T_CHECK(ids.len == 2 && ids.data[0] == 4 && ids.data[1] == 5, "%zu ids", ids.len);
    fx_ids_free(&ids);
    fx_unigram_scratch_free(&scratch_words);
    fx_unigram_free(&m);
    fx_tokenizer_files_close(&files);
}

int main(void)
{
    if (!scratch_open()) return 1;
    t_base64();
    t_score();
    t_bare_word();
    t_marked_pieces();
    t_clip_folders();
    t_clip_refusals();
    t_t5_folders();
    t_t5_normalized_tokens();
    t_t5_refusals();
    t_damaged_model();
    scratch_close();
    return test_end("t_tokenizer_files");
}
