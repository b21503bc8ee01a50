/* `fluxpar inspect PATH`: what is this model, can it be run, and what to do where not. Exit 0 when it can be
 * run, else 3 with the first problem as the error line. */
#include <stdio.h>
#include <string.h>

#include "launch/commands.h"
#include "launch/model_look.h"
#include "runtime/io/json.h"

static const char *plain(const char *text)
{
    return *text ? text : "-";
}

static void human(char *buf, size_t size, double n, double base, const char *unit)
{
    static const char *const decimal[] = {"", "k", "M", "G"}, *const binary[] = {"", "Ki", "Mi", "Gi"};
    int i = 0;
    while (n >= base && i < 3) n /= base, i++;
    snprintf(buf, size, i ? "%.2f %s%s" : "%.0f %s%s", n, base == 1000 ? decimal[i] : binary[i], unit);
}

static void dtype_list(const fx_look_part *p, char *buf, size_t size)
{
    size_t at = 0;
    buf[0] = 0;
    for (int d = 0; d < FX_DTYPES && at < size; d++)
        if (p->of_dtype[d])
            at += (size_t)snprintf(buf + at, size - at, "%s%s (%lld)", at ? ", " : "",
                                   fx_dtype_name((fx_dtype)d), (long long)p->of_dtype[d]);
}

static void print_parts(const fx_look *l)
{
    bool any = false;
    for (int i = 0; i < FX_LOOK_PARTS; i++) any |= l->part[i].tensors > 0;
    if (!any) return;
    printf("\n%-15s %5s %8s %12s %12s  %s\n", "component", "files", "tensors", "parameters", "bytes",
           "dtypes (tensors)");
    for (int i = 0; i < FX_LOOK_PARTS; i++) {
        const fx_look_part *p = &l->part[i];
        char count[32], bytes[32], dtypes[160];
        if (!p->name) continue;
        human(count, sizeof count, (double)p->parameters, 1000, "");
        human(bytes, sizeof bytes, (double)p->bytes, 1024, "B");
        dtype_list(p, dtypes, sizeof dtypes);
        printf("%-15s %5lld %8lld %12s %12s  %s\n", p->name, (long long)p->files, (long long)p->tensors,
               count, bytes, plain(dtypes));
    }
    printf("\n");
}

static void print_text(const char *path, const fx_look *l)
{
    printf("path            %s\nlayout          %s\nkind            %s\n", path, plain(l->layout),
           plain(l->kind));
    printf("title           %s\n", plain(l->title));
    if (l->configs) {
        printf("transformer     %lld double + %lld single blocks, %lld heads x %lld, hidden %lld, %lld "
               "channels in\n",
               (long long)l->double_blocks, (long long)l->single_blocks, (long long)l->heads,
               (long long)l->head_dim, (long long)(l->heads * l->head_dim), (long long)l->in_channels);
        printf("guidance        %s\n",
               l->guidance ? "embedding: 28 steps, guidance 3.5 by default" : "none: 4 steps by default");
        printf("sizes           multiples of %lld pixels\n", (long long)l->multiple);
    }
    print_parts(l);
    if (l->hash) printf("hash            %016llx\n", (unsigned long long)l->hash);
    for (int i = 0; i < l->problems; i++) printf("problem         %s\n", l->problem[i]);
    printf("usable          %s\n", l->problems ? "no" : "yes");
}

static json_t *part_json(const fx_look_part *p)
{
    json_t *dtypes = json_object();
    for (int d = 0; d < FX_DTYPES; d++)
        if (p->of_dtype[d])
            json_object_set_new(dtypes, fx_dtype_name((fx_dtype)d), json_integer(p->of_dtype[d]));
    return json_pack("{s:I, s:I, s:I, s:I, s:o}", "files", (json_int_t)p->files, "tensors",
                     (json_int_t)p->tensors, "parameters", (json_int_t)p->parameters, "bytes",
                     (json_int_t)p->bytes, "dtypes", dtypes);
}

static json_t *look_json(const char *path, const fx_look *l)
{
    char hash[24];
    json_t *problems = json_array(), *parts = json_object();
    for (int i = 0; i < l->problems; i++) json_array_append_new(problems, json_string(l->problem[i]));
    for (int i = 0; i < FX_LOOK_PARTS; i++)
        if (l->part[i].name && l->part[i].tensors)
            json_object_set_new(parts, l->part[i].name, part_json(&l->part[i]));
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:s, s:b, s:o, s:o}", "path", path, "layout", l->layout, "kind", l->kind,
                  "title", l->title, "usable", !l->problems, "problems", problems, "components", parts);
    if (root && l->configs) {
        json_t *sizes =
            json_pack("{s:I, s:I, s:I, s:I, s:I, s:b, s:I}", "heads", (json_int_t)l->heads, "head_dim",
                      (json_int_t)l->head_dim, "double_blocks", (json_int_t)l->double_blocks, "single_blocks",
                      (json_int_t)l->single_blocks, "in_channels", (json_int_t)l->in_channels, "guidance",
                      l->guidance, "size_multiple", (json_int_t)l->multiple);
        json_object_set_new(root, "transformer", sizes);
    }
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)l->hash);
    if (root && l->hash) json_object_set_new(root, "model_hash", json_string(hash));
    return root;
}

fx_status fx_cmd_inspect(fx_run *s, const fx_options *o)
{
    static fx_look look; /* 7 KiB */
    (void)s;
    FX_TRY(fx_look_at(o->path, &look));
    fx_look_weights(o->path, &look);
    if (o->json) {
        json_t *root = look_json(o->path, &look);
        FX_CHECK(root, FX_EFORMAT, "%s has a name that is not UTF-8; JSON cannot hold it; rename it",
                 o->path);
        json_dumpf(root, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(root);
    } else
        print_text(o->path, &look);
    FX_TRY(fx_results_written());
    FX_CHECK(!look.problems, FX_EFORMAT, "%s", look.problem[0]);
    return FX_OK;
}
