/* Jobs out of lines; see jobs.h. Ranges are those of the flags of the same name. */
#include "launch/batch/jobs.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/options.h"
#include "runtime/io/json.h"
#include "runtime/text/utf8.h"

#define FIELDS "prompt|seed|width|height|steps|guidance|output|n"

bool fx_job_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!memchr(" \t\r", text[i], 3)) return false;
    return true;
}

void fx_job_free(fx_job *j)
{
    free(j->prompt);
    free(j->output);
    *j = (fx_job){0};
}

/* "seed": 1.5, shortened: for messages. */
static const char *shown(const char *key, const json_t *value, char out[120])
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(10));
    const int kept = text && strlen(text) > 48 ? 45 : 48;
    snprintf(out, 120, "\"%.24s\": %.*s%s", key, kept, text ? text : "?", kept < 48 ? "..." : "");
    free(text);
    return out;
}

static fx_status refuse(const char *key, const json_t *value, const char *wanted)
{
    char text[120];
    return FX_FAIL(FX_EINVAL, "%s is not possible; it is %s; correct it or leave it out",
                   shown(key, value, text), wanted);
}

/* A whole number, also when written as 512.0. What is none counts as 0, which no field may be. */
static fx_status read_whole(const char *key, const char *flag, const json_t *value, int64_t *out)
{
    const fx_flag *f = &fx_flags[fx_flag_find(flag)];
    char wanted[80];
    const double v = json_number_value(value);
    *out = json_is_integer(value) ? json_integer_value(value) : 0;
    if (json_is_real(value) && floor(v) == v && fabs(v) < 0x1p53) *out = (int64_t)v;
    snprintf(wanted, sizeof wanted, "a whole number from %.0f to %.0f", f->lo, f->hi);
    return (double)*out >= f->lo && (double)*out <= f->hi ? FX_OK : refuse(key, value, wanted);
}

static fx_status read_guidance(const char *key, const json_t *value, double *out)
{
    const fx_flag *f = &fx_flags[fx_flag_find("guidance")];
    char wanted[80];
    *out = json_number_value(value);
    snprintf(wanted, sizeof wanted, "a number from %g to %g", f->lo, f->hi);
    return json_is_number(value) && *out >= f->lo && *out <= f->hi ? FX_OK : refuse(key, value, wanted);
}

/* JSON's integers end at 2^63 here: larger seeds are strings, as in the metadata. */
static fx_status read_seed(const char *key, const json_t *value, fx_job *out)
{
    const char *text = json_string_value(value);
    char *end = NULL;
    errno = 0;
    out->has_seed = true;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        out->seed = (uint64_t)json_integer_value(value);
        return FX_OK;
    }
    if (text && *text >= '0' && *text <= '9') out->seed = strtoull(text, &end, 10);
    if (end && !*end && !errno) return FX_OK;
    return refuse(key, value,
                  "a whole number from 0 to 18446744073709551615, from 9223372036854775808 on as a string");
}

static fx_status read_text(const char *key, const json_t *value, char **out)
{
    if (!json_is_string(value)) return refuse(key, value, "a string");
    *out = strdup(json_string_value(value));
    FX_CHECK(*out, FX_ENOMEM, "no memory for a job");
    return FX_OK;
}

static fx_status read_field(const char *key, const json_t *value, fx_job *out)
{
    char near[32];
    size_t length;
    if (!strcmp(key, "prompt")) {
        FX_TRY(read_text(key, value, &out->prompt));
        return fx_prompt_check(out->prompt, &length);
    }
    if (!strcmp(key, "output")) {
        FX_TRY(read_text(key, value, &out->output));
        return *out->output ? FX_OK : refuse(key, value, "the name of a file");
    }
    if (!strcmp(key, "seed")) return read_seed(key, value, out);
    if (!strcmp(key, "width")) return read_whole(key, key, value, &out->width);
    if (!strcmp(key, "height")) return read_whole(key, key, value, &out->height);
    if (!strcmp(key, "steps")) return read_whole(key, key, value, &out->steps);
    if (!strcmp(key, "n")) return read_whole(key, "count", value, &out->count);
    if (!strcmp(key, "guidance")) return read_guidance(key, value, &out->guidance);
    if (fx_nearest(key, FIELDS, near, sizeof near))
        return FX_FAIL(FX_EINVAL, "unknown field \"%.40s\"; did you mean \"%s\"?", key, near);
    return FX_FAIL(FX_EINVAL,
                   "unknown field \"%.40s\"; the fields are prompt, seed, width, height, steps, guidance, "
                   "output and n",
                   key);
}

static fx_status read_fields(json_t *root, fx_job *out)
{
    const char *key;
    json_t *value;
    FX_CHECK(json_is_object(root), FX_EINVAL,
             "not a JSON object; a line is like {\"prompt\": \"a lighthouse\", \"seed\": 7}");
    json_object_foreach(root, key, value)
    {
        if (!json_is_null(value)) FX_TRY(read_field(key, value, out));
    }
    FX_CHECK(out->prompt, FX_EINVAL,
             "no \"prompt\"; it is the one field that every line needs; it may be \"\"");
    return FX_OK;
}

fx_status fx_job_parse(const char *text, size_t size, fx_job *out)
{
    json_error_t error;
    *out = (fx_job){.guidance = -1};
    FX_CHECK(size <= FX_JOB_BYTES, FX_EINVAL, "longer than %d bytes", FX_JOB_BYTES);
    json_t *root = fx_json_parse(text, size, &error);
    FX_CHECK(root, FX_EINVAL, "not valid JSON; column %d: %.160s", error.column, error.text);
    const fx_status st = read_fields(root, out);
    json_decref(root);
    return st;
}
