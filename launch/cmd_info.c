/* `fluxpar info IMG.png`: how was this picture made. Pictures of fluxpar carry two text chunks; of others,
 * what their "parameters" says is shown. The file is untrusted: bounded by png.h, control characters are not
 * printed. */
#include <stdio.h>
#include <string.h>

#include "launch/commands.h"
#include "runtime/io/json.h"
#include "runtime/io/png.h"

enum { OTHERS_SHOWN = 64, TEXT_SHOWN = 400 };

static void collect(void *ctx, const char *key, const char *value)
{
    json_t *text = json_string(value); /* NULL when not UTF-8 */
    json_object_set_new(ctx, key, text ? text : json_string("(not UTF-8)"));
}

static void print_clean(const char *text, size_t limit)
{
    for (size_t i = 0; i < limit && text[i]; i++) {
        const unsigned char c = (unsigned char)text[i];
        putchar((c < ' ' && c != '\n' && c != '\t') || c == 127 ? '?' : c);
    }
    if (strlen(text) > limit) printf(" ...");
    putchar('\n');
}

static void print_made_by_fluxpar(const json_t *made)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)made, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
        printf("%-15s ", key);
        if (json_is_string(value))
            print_clean(json_string_value(value), 4096);
        else
            print_clean(text ? text : "?", 4096);
        free(text);
    }
}

static void print_foreign(json_t *texts)
{
    const char *parameters = json_string_value(json_object_get(texts, "parameters")), *key;
    json_t *value;
    int shown = 0;
    printf("made by         unknown (no 'fluxpar' text chunk)\n");
    if (parameters) {
        printf("parameters:\n");
        print_clean(parameters, 65536);
    }
    json_object_foreach(texts, key, value)
    {
        if (!strcmp(key, "parameters") || shown++ == OTHERS_SHOWN) continue;
        printf("%s: ", key);
        print_clean(json_string_value(value), TEXT_SHOWN);
    }
    if (!json_object_size(texts)) printf("The picture carries no text.\n");
}

static fx_status print_json(const fx_options *o, int width, int height, json_t *texts, json_t *made)
{
    json_t *root = json_pack("{s:s, s:i, s:i, s:O, s:O}", "path", o->path, "width", width, "height", height,
                             "fluxpar", made ? made : json_null(), "text", texts);
    FX_CHECK(root, FX_EFORMAT, "%s has a name that is not UTF-8; JSON cannot hold it; rename it", o->path);
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
    putchar('\n');
    json_decref(root);
    return FX_OK;
}

fx_status fx_cmd_info(fx_run *s, const fx_options *o)
{
    int width = 0, height = 0;
    json_t *texts = json_object(), *made = NULL;
    (void)s;
    FX_CHECK(texts, FX_ENOMEM, "no memory for the texts of %s", o->path);
    fx_status st = fx_png_read_text(o->path, &width, &height, collect, texts);
    const char *own = json_string_value(json_object_get(texts, "fluxpar"));
    if (st == FX_OK && own) made = fx_json_parse(own, strlen(own), NULL);
    if (made && !json_is_object(made)) json_decref(made), made = NULL;
    if (st == FX_OK && o->json)
        st = print_json(o, width, height, texts, made);
    else if (st == FX_OK) {
        printf("%-15s %s\n%-15s %dx%d\n", "picture", o->path, "pixels", width, height);
        if (made)
            print_made_by_fluxpar(made);
        else
            print_foreign(texts);
    }
    json_decref(made);
    json_decref(texts);
    return st == FX_OK ? fx_results_written() : st;
}
