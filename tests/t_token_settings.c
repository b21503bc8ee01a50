/* What the JSON files of a tokenizer folder set, one by one: lengths and their ends, special tokens and where they may
 * stand, the ids round a prompt. */
#include "tests/scratch.h"
#include "tests/test.h"

#include <jansson.h>

#include "runtime/text/tokenizer_json.h"

static json_t *json(const char *text)
{
    json_t *v = json_loads(text, 0, NULL);
    T_CHECK(v, "%s", text);
    return v;
}

static void t_numbers(void)
{
    static const struct {
        const char *text;
        int32_t length; /* 0: refused */
    } lengths[] = {{"{}", 77},
                   {"{\"model_max_length\": null}", 77},
                   {"{\"model_max_length\": 1}", 0},
                   {"{\"model_max_length\": 2}", 2},
                   {"{\"model_max_length\": 2147483646}", INT32_MAX - 1},
                   {"{\"model_max_length\": 2147483648}", INT32_MAX},
                   {"{\"model_max_length\": 1e30}", INT32_MAX},
                   {"{\"model_max_length\": true}", 0}};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        fx_tokenizer_files f = {.dir = "d", .config = json(lengths[i].text)};
        int32_t got = 0;
        const fx_status st = fx_tokenizer_max_length(&f, 77, &got);
        T_CHECK(lengths[i].length ? st == FX_OK && got == lengths[i].length : st == FX_EFORMAT, "%s: %d",
                lengths[i].text, got);
        fx_tokenizer_files_close(&f);
    }
    fx_tokenizer_files f = {
        .dir = "d",
        .config = json("{\"two\": 2, \"three\": 3, \"five\": 5, \"six\": 6, \"real\": 4.0, \"null\": null}")};
    int32_t got = 0;
    T_REFUSED(fx_tokenizer_int(&f, "two", 3, 5, 4, &got), FX_EFORMAT, "two: wanted an integer from 3 to 5");
    T_REFUSED(fx_tokenizer_int(&f, "six", 3, 5, 4, &got), FX_EFORMAT, "six");
    T_REFUSED(fx_tokenizer_int(&f, "real", 3, 5, 4, &got), FX_EFORMAT, "real");
    T_CHECK(fx_tokenizer_int(&f, "three", 3, 5, 4, &got) == FX_OK && got == 3, "%d", got);
    T_CHECK(fx_tokenizer_int(&f, "five", 3, 5, 4, &got) == FX_OK && got == 5, "%d", got);
    T_CHECK(fx_tokenizer_int(&f, "null", 3, 5, 4, &got) == FX_OK && got == 4, "%d", got);
    T_CHECK(fx_tokenizer_int(&f, "none", 3, 5, 4, &got) == FX_OK && got == 4, "%d", got);
    fx_tokenizer_files_close(&f);
}

/* Where special tokens may stand, which place counts, and how long one may be. */
static void t_special_tokens(void)
{
    fx_tokenizer_files f = {
        .dir = "d",
        .config = json("{\"extra_special_tokens\": [\"<1>\"], \"additional_special_tokens\": [\"<2>\"], "
                       "\"a\": \"<c>\", \"b\": \"<d>\"}"),
        .map = json("{\"extra_special_tokens\": [\"<3>\"], \"additional_special_tokens\": [\"<4>\"], \"a\": "
                    "\"<m>\", \"b\": null}")};
    fx_added_tokens set = {0};
    char text[FX_TOKEN_TEXT_MAX], longest[FX_TOKEN_TEXT_MAX + 1] = "";
    T_OK(fx_tokenizer_extra_tokens(&f, &set));
    T_CHECK(set.count == 4, "%zu extra tokens", set.count);
    T_CHECK(fx_tokenizer_special_token(&f, "a", "<f>", &set, text) == FX_OK && !strcmp(text, "<m>"), "%s",
            text);
    T_CHECK(fx_tokenizer_special_token(&f, "b", "<f>", &set, text) == FX_OK && !strcmp(text, "<d>"), "%s",
            text);
    T_CHECK(fx_tokenizer_special_token(&f, "c", "<f>", &set, text) == FX_OK && !strcmp(text, "<f>"), "%s",
            text);
    T_CHECK(set.count == 7, "%zu tokens", set.count);
    memset(longest, 'x', FX_TOKEN_TEXT_MAX);
    json_object_set_new(f.map, "a", json_string(longest));
    T_REFUSED(fx_tokenizer_special_token(&f, "a", "<f>", &set, text), FX_EFORMAT, "longer than 255 bytes");
    json_object_set_new(f.map, "a", json_string(longest + 1));
    T_CHECK(fx_tokenizer_special_token(&f, "a", "<f>", &set, text) == FX_OK && !strcmp(text, longest + 1),
            "%s", text);
    json_object_set_new(f.map, "a", json_stringn("a\0b", 3));
    T_REFUSED(fx_tokenizer_special_token(&f, "a", "<f>", &set, text), FX_EFORMAT, "zero byte");
    fx_added_free(&set);
    fx_tokenizer_files_close(&f);
}

/* The ids before and after the prompt. */
static void t_frames(void)
{
    static const struct {
        const char *post;
        int32_t bos, eos; /* 0: refused */
    } frames[] = {
        {"null", 7, 8},
        {"{\"type\": \"RobertaProcessing\", \"cls\": [\"<s>\", 3], \"sep\": [\"</s>\", 4]}", 3, 4},
        {"{\"type\": \"RobertaProcessing\", \"cls\": [\"<s>\", -1], \"sep\": [\"</s>\", 4]}", 0, 0},
        {"{\"type\": \"RobertaProcessing\", \"cls\": [\"<s>\", 2147483647], \"sep\": [\"</s>\", 4]}", 0, 0},
        {"{\"type\": \"RobertaProcessing\", \"cls\": [\"<s>\", 2147483646], \"sep\": [\"</s>\", 1]}",
         INT32_MAX - 1, 1},
        {"{\"type\": \"Other\"}", 0, 0},
        {"{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"s\"}}, "
         "{\"Sequence\": {}}, {\"SpecialToken\": {\"id\": "
         "\"t\"}}], \"special_tokens\": {\"s\": {\"ids\": [5]}, \"t\": {\"ids\": [6]}}}",
         5, 6},
        {"{\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {}}, {\"SpecialToken\": {\"id\": "
         "\"t\"}}], "
         "\"special_tokens\": {\"t\": {\"ids\": [6]}}}",
         7, 6},
        {"{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"s\"}}, "
         "{\"SpecialToken\": {\"id\": \"s\"}}, {\"Sequence\": "
         "{}}], \"special_tokens\": {\"s\": {\"ids\": [5]}}}",
         0, 0},
        {"{\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {}}, {\"SpecialToken\": {\"id\": "
         "\"s\"}}, {\"SpecialToken\": {\"id\": \"s\"}}], "
         "\"special_tokens\": {\"s\": {\"ids\": [5]}}}",
         0, 0},
        {"{\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {}}, {\"Sequence\": {}}]}", 0, 0},
        {"{\"type\": \"TemplateProcessing\", \"single\": []}", 0, 0},
        {"{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"s\"}}, "
         "{\"Sequence\": {}}], "
         "\"special_tokens\": {\"s\": {\"ids\": [5, 6]}}}",
         0, 0},
    };
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        fx_tokenizer_files f = {.dir = "d", .full = json_object()};
        int32_t bos = 7, eos = 8;
        json_object_set_new(f.full, "post_processor", json_loads(frames[i].post, JSON_DECODE_ANY, NULL));
        const fx_status st = fx_tokenizer_frame(&f, &bos, &eos);
        T_CHECK(frames[i].eos ? st == FX_OK && bos == frames[i].bos && eos == frames[i].eos
                              : st == FX_EFORMAT,
                "%s: %d, %d", frames[i].post, bos, eos);
        fx_tokenizer_files_close(&f);
    }
}

int main(void)
{
    t_numbers();
    t_special_tokens();
    t_frames();
    return test_end("t_token_settings");
}
