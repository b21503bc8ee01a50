/* Reads a tokenizer folder's JSON files the way transformers 5 does: the class rebuilds normaliser and
 * pre-tokeniser in code, so only vocabulary, charsmap, added tokens, special tokens and post-processor are
 * taken from the files. */
#include "runtime/text/tokenizer_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/io/file.h"
#include "runtime/io/json.h"

#define FULL_NAME "tokenizer.json"

fx_status fx_tokenizer_path(const fx_tokenizer_files *f, const char *name, char *path, size_t size)
{
    const int n = snprintf(path, size, "%s/%s", f->dir, name);
    FX_CHECK(n > 0 && (size_t)n < size, FX_EFORMAT, "%s/%s: the path is too long; limit %zu bytes", f->dir,
             name, size);
    return FX_OK;
}

/* A link that leads nowhere exists: an unfinished download must not pass for a file that was never there. */
static bool exists(const fx_tokenizer_files *f, const char *name)
{
    char path[1280];
    struct stat info;
    return fx_tokenizer_path(f, name, path, sizeof path) == FX_OK && lstat(path, &info) == 0;
}

static fx_status load_object(const fx_tokenizer_files *f, const char *name, json_t **out)
{
    char path[1280];
    FX_TRY(fx_tokenizer_path(f, name, path, sizeof path));
    FX_TRY(fx_json_load(path, FX_TOKENIZER_FILE_MAX, out));
    if (json_is_object(*out)) return FX_OK;
    json_decref(*out);
    *out = NULL;
    return FX_FAIL(FX_EFORMAT, "%s: wanted a JSON object; found something else; replace the file", path);
}

fx_status fx_tokenizer_read(const char *path, fx_buf *out)
{
    char *data = NULL;
    size_t size = 0;
    FX_TRY(fx_file_load(path, FX_TOKENIZER_FILE_MAX, &data, &size));
    const fx_status st = size ? fx_buf_put(out, data, size)
                              : FX_FAIL(FX_EFORMAT, "%s: the file is empty; download it again", path);
    free(data);
    return st;
}

/* Settings that would change the ids and are not implemented. */
static fx_status check_settings(const fx_tokenizer_files *f)
{
    static const char *const sides[] = {"truncation_side", "padding_side"};
    for (int i = 0; i < 2; i++) {
        const char *v = json_string_value(json_object_get(f->config, sides[i]));
        FX_CHECK(!v || !strcmp(v, "right"), FX_EFORMAT,
                 "%s/tokenizer_config.json: %s is '%s'; only 'right' is implemented", f->dir, sides[i], v);
    }
    /* With tokenizer.json the reference ignores these two keys. */
    static const char *const flags[] = {"add_bos_token", "add_eos_token"};
    for (int i = 0; i < 2 && f->raw; i++) {
        const json_t *v = json_object_get(f->config, flags[i]);
        FX_CHECK(!v || json_is_null(v), FX_EFORMAT,
                 "%s/tokenizer_config.json: %s is set; that is not implemented; remove the key", f->dir,
                 flags[i]);
    }
    return FX_OK;
}

static fx_status load_files(fx_tokenizer_files *f)
{
    if (exists(f, "tokenizer_config.json"))
        FX_TRY(load_object(f, "tokenizer_config.json", &f->config));
    else
        f->config = json_object();
    FX_CHECK(f->config, FX_ENOMEM, "%s: out of memory", f->dir);
    const bool listed = json_object_get(f->config, "added_tokens_decoder") != NULL;
    if (!listed && exists(f, "special_tokens_map.json"))
        FX_TRY(load_object(f, "special_tokens_map.json", &f->map));
    if (!f->raw || (!listed && exists(f, FULL_NAME))) FX_TRY(load_object(f, FULL_NAME, &f->full));
    return check_settings(f);
}

fx_status fx_tokenizer_files_open(const char *dir, const char *const raw_files[], fx_tokenizer_files *out)
{
    *out = (fx_tokenizer_files){.raw = true};
    const int n = snprintf(out->dir, sizeof out->dir, "%s", dir);
    FX_CHECK(n > 0 && (size_t)n < sizeof out->dir, FX_EFORMAT,
             "tokenizer folder: the path is empty or too long");
    const char *missing = NULL;
    for (int i = 0; raw_files[i]; i++)
        if (!exists(out, raw_files[i])) missing = raw_files[i];
    out->raw = !missing;
    FX_CHECK(!missing || exists(out, FULL_NAME), FX_EREAD,
             "%s: no vocabulary; neither %s nor " FULL_NAME " is there; complete the model folder", dir,
             missing);
    const fx_status st = load_files(out);
    if (st != FX_OK) fx_tokenizer_files_close(out);
    return st;
}

void fx_tokenizer_files_close(fx_tokenizer_files *f)
{
    json_decref(f->config);
    json_decref(f->map);
    json_decref(f->full);
    f->config = f->map = f->full = NULL;
}

/* One token: a string (raw match), or an object with content and flags. */
static fx_status put_token(const fx_tokenizer_files *f, const char *where, const json_t *v,
                           fx_added_tokens *set, char *text)
{
    const json_t *content = json_is_object(v) ? json_object_get(v, "content") : v;
    FX_CHECK(json_is_string(content), FX_EFORMAT,
             "%s: %s: wanted a token (text, or an object with 'content'); found another type", f->dir, where);
    const char *s = json_string_value(content);
    FX_CHECK(strlen(s) == json_string_length(content) && strlen(s) < FX_TOKEN_TEXT_MAX, FX_EFORMAT,
             "%s: %s: the token's text holds a zero byte or is longer than %d bytes", f->dir, where,
             FX_TOKEN_TEXT_MAX - 1);
    FX_CHECK(!json_is_true(json_object_get(v, "single_word")), FX_EFORMAT,
             "%s: %s: token '%s' has single_word set; that is not implemented", f->dir, where, s);
    const json_t *normalized = json_object_get(v, "normalized"), *special = json_object_get(v, "special");
    char copy[FX_TOKEN_TEXT_MAX];
    snprintf(copy, sizeof copy, "%s", s);
    const fx_added_token t = {
        .text = copy,
        .lstrip = json_is_true(json_object_get(v, "lstrip")),
        .rstrip = json_is_true(json_object_get(v, "rstrip")),
        /* the library's default: ordinary tokens are matched in normalised text, special ones in raw text */
        .normalized = json_is_boolean(normalized) ? json_is_true(normalized) : json_is_false(special)};
    if (text) snprintf(text, FX_TOKEN_TEXT_MAX, "%s", s);
    return fx_added_put(set, &t);
}

fx_status fx_tokenizer_listed_tokens(const fx_tokenizer_files *f, fx_added_tokens *set)
{
    json_t *decoder = json_object_get(f->config, "added_tokens_decoder");
    if (decoder) {
        FX_CHECK(json_is_object(decoder), FX_EFORMAT,
                 "%s/tokenizer_config.json: added_tokens_decoder: wanted an object", f->dir);
        const char *key;
        json_t *v;
        json_object_foreach(decoder, key, v) FX_TRY(put_token(f, "added_tokens_decoder", v, set, NULL));
        return FX_OK;
    }
    const json_t *table = json_object_get(f->full, "added_tokens");
    FX_CHECK(!table || json_is_array(table), FX_EFORMAT, "%s/" FULL_NAME ": added_tokens: wanted a list",
             f->dir);
    size_t i;
    json_t *v;
    json_array_foreach(table, i, v) FX_TRY(put_token(f, FULL_NAME " added_tokens", v, set, NULL));
    return FX_OK;
}

fx_status fx_tokenizer_special_token(const fx_tokenizer_files *f, const char *key, const char *fallback,
                                     fx_added_tokens *set, char *text)
{
    const json_t *v = json_object_get(f->map, key);
    if (!v || json_is_null(v)) v = json_object_get(f->config, key);
    if (v && !json_is_null(v)) return put_token(f, key, v, set, text);
    snprintf(text, FX_TOKEN_TEXT_MAX, "%s", fallback);
    const fx_added_token t = {.text = text};
    return fx_added_put(set, &t);
}

fx_status fx_tokenizer_extra_tokens(const fx_tokenizer_files *f, fx_added_tokens *set)
{
    static const char *const keys[] = {"extra_special_tokens", "additional_special_tokens"};
    const json_t *const from[] = {f->map, f->config};
    for (int k = 0; k < 4; k++) {
        const json_t *list = json_object_get(from[k / 2], keys[k % 2]);
        size_t i;
        json_t *v;
        json_array_foreach(list, i, v) FX_TRY(put_token(f, keys[k % 2], v, set, NULL));
    }
    return FX_OK;
}

fx_status fx_tokenizer_max_length(const fx_tokenizer_files *f, int32_t fallback, int32_t *out)
{
    const json_t *v = json_object_get(f->config, "model_max_length");
    *out = fallback;
    if (!v || json_is_null(v)) return FX_OK;
    FX_CHECK(json_is_number(v) && json_number_value(v) >= 2, FX_EFORMAT,
             "%s/tokenizer_config.json: model_max_length: wanted a number of at least 2", f->dir);
    /* "no limit" is written as 1e30 */
    const double length = json_number_value(v);
    *out = length >= INT32_MAX ? INT32_MAX : (int32_t)length;
    return FX_OK;
}

fx_status fx_tokenizer_int(const fx_tokenizer_files *f, const char *key, int32_t lo, int32_t hi,
                           int32_t fallback, int32_t *out)
{
    const json_t *v = json_object_get(f->config, key);
    *out = fallback;
    if (!v || json_is_null(v)) return FX_OK;
    FX_CHECK(json_is_integer(v) && json_integer_value(v) >= lo && json_integer_value(v) <= hi, FX_EFORMAT,
             "%s/tokenizer_config.json: %s: wanted an integer from %d to %d", f->dir, key, lo, hi);
    *out = (int32_t)json_integer_value(v);
    return FX_OK;
}

static fx_status frame_id(const fx_tokenizer_files *f, const json_t *v, int32_t *out)
{
    FX_CHECK(json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < INT32_MAX,
             FX_EFORMAT, "%s/" FULL_NAME ": post_processor: wanted a token id", f->dir);
    *out = (int32_t)json_integer_value(v);
    return FX_OK;
}

/* TemplateProcessing "single": at most one special token on each side of the sequence A. */
static fx_status template_frame(const fx_tokenizer_files *f, const json_t *post, int32_t *bos, int32_t *eos)
{
    const json_t *single = json_object_get(post, "single"),
                 *specials = json_object_get(post, "special_tokens");
    bool after = false;
    bool found[2] = {false, false}; /* a token before and after the sequence */
    size_t i;
    json_t *v;
    json_array_foreach(single, i, v)
    {
        const char *name = json_string_value(json_object_get(json_object_get(v, "SpecialToken"), "id"));
        if (!name) {
            FX_CHECK(!after && json_object_get(v, "Sequence"), FX_EFORMAT,
                     "%s/" FULL_NAME ": post_processor: template not implemented", f->dir);
            after = true;
            continue;
        }
        const json_t *ids = json_object_get(json_object_get(specials, name), "ids");
        FX_CHECK(json_array_size(ids) == 1 && !found[after], FX_EFORMAT,
                 "%s/" FULL_NAME
                 ": post_processor: template with several tokens on one side is not implemented",
                 f->dir);
        found[after] = true;
        FX_TRY(frame_id(f, json_array_get(ids, 0), after ? eos : bos));
    }
    FX_CHECK(after, FX_EFORMAT, "%s/" FULL_NAME ": post_processor: the template has no sequence", f->dir);
    return FX_OK;
}

fx_status fx_tokenizer_frame(const fx_tokenizer_files *f, int32_t *bos, int32_t *eos)
{
    const json_t *post = json_object_get(f->full, "post_processor");
    if (f->raw || !post || json_is_null(post)) return FX_OK;
    const char *type = json_string_value(json_object_get(post, "type"));
    if (type && !strcmp(type, "TemplateProcessing")) return template_frame(f, post, bos, eos);
    FX_CHECK(type && !strcmp(type, "RobertaProcessing"), FX_EFORMAT,
             "%s/" FULL_NAME ": post_processor type '%s' is not implemented", f->dir, type ? type : "(none)");
    FX_TRY(frame_id(f, json_array_get(json_object_get(post, "cls"), 1), bos));
    return frame_id(f, json_array_get(json_object_get(post, "sep"), 1), eos);
}

fx_status fx_tokenizer_model(const fx_tokenizer_files *f, const char *type, json_t **out)
{
    *out = json_object_get(f->full, "model");
    FX_CHECK(json_is_object(*out), FX_EFORMAT, "%s/" FULL_NAME ": model: wanted an object", f->dir);
    const char *found = json_string_value(json_object_get(*out, "type"));
    FX_CHECK(!found || !strcmp(found, type), FX_EFORMAT, "%s/" FULL_NAME ": model type '%s'; wanted '%s'",
             f->dir, found, type);
    return FX_OK;
}
