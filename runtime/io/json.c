/* JSON files of a model folder: read whole with a size limit, parsed by jansson (depth bounded, no
 * duplicate keys), then read through typed getters. Configs are untrusted and often hand-edited, so each
 * refusal names file, key, the value wanted and the value found. */
#include "runtime/io/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"

enum { DEFAULT_MAX_BYTES = 16 << 20 };

/* Brackets open at once outside strings, at most. jansson recurses per bracket; its own limit is a constant
 * of its build, and far from what any file here needs. */
static int depth_of(const char *text, size_t size)
{
    int depth = 0, most = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        const char c = text[i];
        if (c == '"')
            in_string = !in_string;
        else if (in_string)
            i += c == '\\'; /* whatever follows does not end the string */
        else if (c == '[' || c == '{')
            most = ++depth > most ? depth : most;
        else if (c == ']' || c == '}')
            depth--;
    }
    return most;
}

/* Reals that are whole numbers become integers again. Depth is bounded by FX_JSON_DEPTH. */
static json_t *restore_integers(json_t *value)
{
    const char *key;
    json_t *item;
    void *next;
    size_t i;
    if (json_is_real(value)) {
        const double v = json_real_value(value);
        if (fabs(v) >= 0x1p53 || floor(v) != v) return value;
        json_decref(value);
        return json_integer((json_int_t)v);
    }
    json_object_foreach_safe(value, next, key, item)
        json_object_set_new(value, key, restore_integers(json_incref(item)));
    json_array_foreach(value, i, item) json_array_set_new(value, i, restore_integers(json_incref(item)));
    return value;
}

json_t *fx_json_parse(const char *text, size_t size, json_error_t *error)
{
    if (depth_of(text, size) <= FX_JSON_DEPTH) {
        json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, error);
        /* Tokenizers say "no limit" by an integer beyond 64 bits, which jansson refuses: read it as a real. */
        if (root) return root;
        root = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, error);
        return root ? restore_integers(root) : NULL;
    }
    if (error) {
        memset(error, 0, sizeof *error);
        snprintf(error->text, sizeof error->text, "nested too deep; the maximum depth is %d", FX_JSON_DEPTH);
    }
    return NULL;
}

fx_status fx_json_load(const char *path, size_t max_bytes, json_t **out)
{
    char *text;
    size_t size;
    json_error_t error;
    FX_TRY(fx_file_load(path, max_bytes ? max_bytes : DEFAULT_MAX_BYTES, &text, &size));
    *out = fx_json_parse(text, size, &error);
    free(text);
    FX_CHECK(*out, FX_EFORMAT, "%s is not valid JSON; line %d: %s", path, error.line, error.text);
    return FX_OK;
}

fx_status fx_config_open(const char *model_dir, const char *component, const char *file, fx_config *out)
{
    out->root = NULL;
    FX_TRY(fx_file_join(out->path, sizeof out->path, model_dir, component, file));
    FX_TRY(fx_json_load(out->path, 0, &out->root));
    if (json_is_object(out->root)) return FX_OK;
    fx_config_close(out);
    return FX_FAIL(FX_EFORMAT,
                   "%s: wanted a JSON object { ... } with the configuration, found something else",
                   out->path);
}

void fx_config_close(fx_config *config)
{
    json_decref(config->root);
    config->root = NULL;
}

/* The value as text for messages, shortened. */
static const char *found(const json_t *value, char buf[80])
{
    if (!value) return "nothing";
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
    snprintf(buf, 80, "%.60s%s", text ? text : "?", text && strlen(text) > 60 ? "..." : "");
    free(text);
    return buf;
}

static fx_status refuse(const fx_config *c, const char *key, const json_t *value, const char *wanted)
{
    char buf[80];
    return FX_FAIL(FX_EFORMAT, "%s: \"%s\": wanted %s, found %s", c->path, key, wanted, found(value, buf));
}

/* NULL when absent or null. */
static json_t *lookup(const fx_config *c, const char *key)
{
    json_t *value = json_object_get(c->root, key);
    return json_is_null(value) ? NULL : value;
}

bool fx_config_has(const fx_config *c, const char *key)
{
    return lookup(c, key) != NULL;
}

/* An integer, also when written as 4.0. */
static bool integer_of(const json_t *value, int64_t *out)
{
    if (json_is_integer(value))
        *out = json_integer_value(value);
    else if (json_is_real(value) && fabs(json_real_value(value)) < 0x1p53 &&
             floor(json_real_value(value)) == json_real_value(value))
        *out = (int64_t)json_real_value(value);
    else
        return false;
    return true;
}

fx_status fx_config_int(const fx_config *c, const char *key, int64_t lo, int64_t hi, const int64_t *fallback,
                        int64_t *out)
{
    const json_t *value = lookup(c, key);
    char wanted[80];
    if (!value && fallback) {
        *out = *fallback;
        return FX_OK;
    }
    if (integer_of(value, out) && *out >= lo && *out <= hi) return FX_OK;
    snprintf(wanted, sizeof wanted, "an integer from %lld to %lld", (long long)lo, (long long)hi);
    return refuse(c, key, value, wanted);
}

fx_status fx_config_real(const fx_config *c, const char *key, double lo, double hi, const double *fallback,
                         double *out)
{
    const json_t *value = lookup(c, key);
    char wanted[80];
    if (!value && fallback) {
        *out = *fallback;
        return FX_OK;
    }
    *out = json_number_value(value);
    if (json_is_number(value) && *out >= lo && *out <= hi) return FX_OK;
    snprintf(wanted, sizeof wanted, "a number from %g to %g", lo, hi);
    return refuse(c, key, value, wanted);
}

fx_status fx_config_bool(const fx_config *c, const char *key, const bool *fallback, bool *out)
{
    const json_t *value = lookup(c, key);
    if (!value && fallback)
        *out = *fallback;
    else if (json_is_boolean(value))
        *out = json_is_true(value);
    else
        return refuse(c, key, value, "true or false");
    return FX_OK;
}

fx_status fx_config_string(const fx_config *c, const char *key, const char *fallback, char *out, size_t size)
{
    const json_t *value = lookup(c, key);
    const char *text = value ? json_string_value(value) : fallback;
    if (!text) return refuse(c, key, value, "a string");
    if (strlen(text) >= size) return refuse(c, key, value, "a shorter string");
    memcpy(out, text, strlen(text) + 1);
    return FX_OK;
}

fx_status fx_config_ints(const fx_config *c, const char *key, int max, int64_t lo, int64_t hi, int *count,
                         int64_t out[])
{
    const json_t *list = lookup(c, key);
    const size_t n = json_array_size(list);
    char wanted[120];
    snprintf(wanted, sizeof wanted, "a list of 1 to %d integers from %lld to %lld", max, (long long)lo,
             (long long)hi);
    if (n < 1 || n > (size_t)max) return refuse(c, key, list, wanted);
    for (size_t i = 0; i < n; i++)
        if (!integer_of(json_array_get(list, i), &out[i]) || out[i] < lo || out[i] > hi)
            return refuse(c, key, list, wanted);
    *count = (int)n;
    return FX_OK;
}

static fx_status not_implemented(const fx_config *c, const char *key, const json_t *value, const char *want)
{
    char buf[80];
    return FX_FAIL(FX_EFORMAT, "%s: \"%s\" = %s is not implemented; only %s is", c->path, key,
                   found(value, buf), want);
}

fx_status fx_config_only_int(const fx_config *c, const char *key, int64_t want)
{
    const json_t *value = lookup(c, key);
    char text[32];
    int64_t got;
    if (!value || (integer_of(value, &got) && got == want)) return FX_OK;
    snprintf(text, sizeof text, "%lld", (long long)want);
    return not_implemented(c, key, value, text);
}

fx_status fx_config_only_bool(const fx_config *c, const char *key, bool want)
{
    const json_t *value = lookup(c, key);
    if (!value || (json_is_boolean(value) && json_is_true(value) == want)) return FX_OK;
    return not_implemented(c, key, value, want ? "true" : "false");
}

fx_status fx_config_only_string(const fx_config *c, const char *key, const char *want)
{
    const json_t *value = lookup(c, key);
    char text[80];
    if (!value || (json_is_string(value) && strcmp(json_string_value(value), want) == 0)) return FX_OK;
    snprintf(text, sizeof text, "\"%s\"", want);
    return not_implemented(c, key, value, text);
}
