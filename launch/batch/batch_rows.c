/* What a line of the results file holds; see batch_rows.h. */
#include "launch/batch/batch_rows.h"

#include <stdio.h>

#include "launch/batch/results.h"

/* "status" comes first: results.c knows its lines by it. */
json_t *fx_row_of(const char *status, const fx_task *o)
{
    json_t *row = json_pack("{s:s, s:I, s:I, s:s}", "status", status, "line", (json_int_t)o->line, "image",
                            (json_int_t)o->image, "path", o->path);
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)o->seed);
    json_object_set_new(row, "seed",
                        o->seed <= INT64_MAX ? json_integer((json_int_t)o->seed) : json_string(text));
    json_object_set_new(row, "width", json_integer(o->width));
    json_object_set_new(row, "height", json_integer(o->height));
    json_object_set_new(row, "steps", json_integer(o->steps));
    json_object_set_new(row, "key", json_string(o->key));
    return row;
}

void fx_row_error(json_t *row, fx_status st, const char *text)
{
    char clean[2048];
    snprintf(clean, sizeof clean, "%s", text);
    fx_results_clean(clean);
    json_object_set_new(row, "error", json_string(clean));
    json_object_set_new(row, "exit", json_integer(fx_exit_code(st)));
}

json_t *fx_row_made(const fx_task *o, const fx_made *m)
{
    json_t *row = fx_row_of("ok", o);
    json_object_set_new(row, "text_kept", json_boolean(m->text_kept != 0));
    json_object_set_new(row, "seconds",
                        json_pack("{s:f, s:f, s:f, s:f, s:f}", "text", m->text_s, "denoise", m->denoise_s,
                                  "vae", m->vae_s, "png", m->png_s, "total", m->total_s));
    return row;
}

uint64_t fx_row_seed(uint64_t drawn, int64_t line)
{
    uint64_t x = drawn + (uint64_t)line * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (x ^ (x >> 31)) & 0xffffffffu; /* the generator uses 32 bits of a seed */
}
