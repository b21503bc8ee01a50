/* The content of a machine file: every value has a range, every refusal names file, key and value. Called by machine.c. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/io/json.h"
#include "runtime/io/output.h"
#include "runtime/predict/machine.h"

/* Where a value stands, for messages: "h200.json: gemm[3].tflops". */
typedef struct place {
    const char *path;
    char key[128];
} place;

static fx_status refuse(const place *p, const char *key, const char *want)
{
    return FX_FAIL(FX_EFORMAT, "%s: %s%s%s: %s; correct the file", p->path, p->key, p->key[0] ? "." : "", key,
                   want);
}

static place inside(const place *p, const char *key, int index)
{
    place q = {.path = p->path};
    const char *dot = p->key[0] ? "." : "";
    if (index < 0)
        snprintf(q.key, sizeof q.key, "%.80s%s%.32s", p->key, dot, key);
    else
        snprintf(q.key, sizeof q.key, "%.80s%s%.24s[%d]", p->key, dot, key, index);
    return q;
}

/* fallback < 0: required. */
static fx_status real(const json_t *o, const place *p, const char *key, double lo, double hi, double fallback,
                      double *out)
{
    char want[96];
    const json_t *v = json_object_get(o, key);
    if (!v && fallback >= 0) {
        *out = fallback;
        return FX_OK;
    }
    if (!v) return refuse(p, key, "is missing");
    snprintf(want, sizeof want, "wanted a number from %g to %g", lo, hi);
    if (!json_is_number(v)) return refuse(p, key, want);
    *out = json_number_value(v);
    return isfinite(*out) && *out >= lo && *out <= hi ? FX_OK : refuse(p, key, want);
}

static fx_status whole(const json_t *o, const place *p, const char *key, double lo, double hi,
                       double fallback, int64_t *out)
{
    double v;
    FX_TRY(real(o, p, key, lo, hi, fallback, &v));
    if (floor(v) != v) return refuse(p, key, "wanted a whole number");
    *out = (int64_t)v;
    return FX_OK;
}

static fx_status text(const json_t *o, const place *p, const char *key, bool needed, char *out, size_t size)
{
    const json_t *v = json_object_get(o, key);
    out[0] = 0;
    if (!v && !needed) return FX_OK;
    if (!json_is_string(v)) return refuse(p, key, "wanted text");
    snprintf(out, size, "%s", json_string_value(v));
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) return refuse(p, key, "control characters in a text");
    return FX_OK;
}

/* A typing error in a key would silently leave its value out. */
static fx_status known_keys(json_t *o, const place *p, const char *keys)
{
    const char *key;
    json_t *v;
    char word[64];
    json_object_foreach(o, key, v)
    {
        (void)v;
        if (snprintf(word, sizeof word, "|%s|", key) >= (int)sizeof word || strchr(key, '|') ||
            !strstr(keys, word)) {
            char shown[48];
            snprintf(shown, sizeof shown, "%.40s", key);
            for (char *c = shown; *c; c++)
                if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
            return refuse(p, shown, "is not a key of a machine file");
        }
    }
    return FX_OK;
}

/* An object; NULL in *out when it may be missing and is. */
static fx_status object(const json_t *o, const place *p, const char *key, bool needed, const char *keys,
                        json_t **out)
{
    *out = json_object_get(o, key);
    if (!*out && !needed) return FX_OK;
    if (!json_is_object(*out)) return refuse(p, key, *out ? "wanted { ... }" : "is missing");
    const place q = inside(p, key, -1);
    return keys ? known_keys(*out, &q, keys) : FX_OK;
}

/* ---- parts ---- */

static fx_status dtype_of(const json_t *o, const place *p, fx_rate_dtype *out)
{
    char name[32];
    FX_TRY(text(o, p, "dtype", true, name, sizeof name));
    for (int i = 0; i < FX_RATE_DTYPES; i++)
        if (!strcmp(name, fx_rate_name((fx_rate_dtype)i))) {
            *out = (fx_rate_dtype)i;
            return FX_OK;
        }
    return refuse(p, "dtype", "wanted bf16, fp8, nvfp4 or f32");
}

static fx_status read_rate(json_t *o, const place *p, fx_rate *r)
{
    if (!json_is_object(o)) return refuse(p, "", "wanted { ... }");
    FX_TRY(known_keys(o, p, "|dtype|tile|tflops|tile_us|"));
    FX_TRY(dtype_of(o, p, &r->dtype));
    const json_t *tile = json_object_get(o, "tile");
    if (!json_is_array(tile) || json_array_size(tile) != 2)
        return refuse(p, "tile", "wanted [rows, columns]");
    int64_t *const side[2] = {&r->rows, &r->cols};
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_array_get(tile, i);
        if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > 65536)
            return refuse(p, "tile", "wanted whole numbers from 1 to 65536");
        *side[i] = json_integer_value(v);
    }
    FX_TRY(real(o, p, "tflops", 1e-6, 1e6, -1, &r->tflops));
    return real(o, p, "tile_us", 0, 1e6, 0, &r->tile_us);
}

static fx_status read_rates(const json_t *o, const place *p, const char *key, fx_rates *out)
{
    const json_t *list = json_object_get(o, key);
    bool base = false;
    if (!json_is_array(list)) return refuse(p, key, list ? "wanted a list" : "is missing");
    if (json_array_size(list) > FX_MACHINE_RATES) return refuse(p, key, "more than 96 classes");
    out->n = (int)json_array_size(list);
    for (int i = 0; i < out->n; i++) {
        const place q = inside(p, key, i);
        FX_TRY(read_rate(json_array_get(list, (size_t)i), &q, &out->r[i]));
        base = base || out->r[i].dtype == FX_RATE_BF16 || out->r[i].dtype == FX_RATE_F32;
    }
    return base ? FX_OK : refuse(p, key, "has no class of bf16 or f32");
}

static fx_status read_peak(const json_t *root, const place *p, fx_machine *m)
{
    json_t *o, *rates;
    FX_TRY(object(root, p, "peak", true, "|memory_gbps|link_gbps|tflops|", &o));
    const place q = inside(p, "peak", -1), r = inside(&q, "tflops", -1);
    FX_TRY(real(o, &q, "memory_gbps", 1e-3, 1e7, -1, &m->peak_gbps));
    FX_TRY(real(o, &q, "link_gbps", 1e-3, 1e7, -1, &m->peak_link_gbps));
    FX_TRY(object(o, &q, "tflops", true, "|bf16|fp8|nvfp4|f32|", &rates));
    for (int i = 0; i < FX_RATE_DTYPES; i++)
        FX_TRY(real(rates, &r, fx_rate_name((fx_rate_dtype)i), 1e-6, 1e7, 0, &m->peak_tflops[i]));
    return FX_OK;
}

static fx_status read_rows(const json_t *root, const place *p, fx_machine *m)
{
    json_t *o, *ops, *v;
    const char *name;
    FX_TRY(object(root, p, "rows", true, "|gbps|ops|", &o));
    const place q = inside(p, "rows", -1), r = inside(&q, "ops", -1);
    FX_TRY(real(o, &q, "gbps", 1e-3, 1e6, -1, &m->rows_gbps));
    FX_TRY(object(o, &q, "ops", false, NULL, &ops));
    m->ops = 0;
    json_object_foreach(ops, name, v)
    {
        fx_op_rate *to = &m->op[m->ops];
        (void)v;
        if (m->ops == FX_MACHINE_OPS) return refuse(&q, "ops", "more than 16 ops");
        if (snprintf(to->name, sizeof to->name, "%s", name) >= (int)sizeof to->name)
            return refuse(&q, "ops", "a name of more than 31 characters");
        for (const char *c = to->name; *c; c++)
            if ((*c < 'a' || *c > 'z') && (*c < '0' || *c > '9') && *c != '_')
                return refuse(&q, "ops", "names are of a-z, 0-9, _");
        FX_TRY(real(ops, &r, to->name, 1e-3, 1e6, -1, &to->gbps));
        m->ops++;
    }
    return FX_OK;
}

static fx_status read_exchange(const json_t *root, const place *p, fx_machine *m)
{
    json_t *all, *o;
    FX_TRY(object(root, p, "exchange", true, "|lsa|peer|nccl|mpi|", &all));
    const place q = inside(p, "exchange", -1);
    for (int i = 0; i < FX_BYS; i++) {
        fx_by_rate *b = &m->by[i];
        const char *name = fx_by_name((fx_by)i);
        const place r = inside(&q, name, -1);
        *b = (fx_by_rate){.overlap = i != FX_BY_LSA};
        FX_TRY(object(all, &q, name, false, "|start_us|wait_us|gbps|overlap|", &o));
        if (!o) continue;
        const json_t *overlap = json_object_get(o, "overlap");
        if (overlap && !json_is_boolean(overlap)) return refuse(&r, "overlap", "wanted true or false");
        if (overlap) b->overlap = json_is_true(overlap);
        b->given = true;
        FX_TRY(real(o, &r, "start_us", 0, 1e6, -1, &b->start_us));
        FX_TRY(real(o, &r, "wait_us", 0, 1e6, -1, &b->wait_us));
        FX_TRY(real(o, &r, "gbps", 1e-3, 1e6, -1, &b->gbps));
    }
    return FX_OK;
}

static fx_status read_topology(const json_t *root, const place *p, fx_machine *m)
{
    json_t *o;
    FX_TRY(object(root, p, "domain", true, "|ranks|latency_us|", &o));
    const place q = inside(p, "domain", -1), r = inside(p, "network", -1);
    FX_TRY(whole(o, &q, "ranks", 1, 65536, -1, &m->domain_ranks));
    FX_TRY(real(o, &q, "latency_us", 0, 1e6, -1, &m->domain_latency_us));
    m->network_gbps = m->network_domain_gbps = m->network_latency_us = 0;
    FX_TRY(object(root, p, "network", false, "|gbps|domain_gbps|latency_us|", &o));
    if (!o) return FX_OK;
    FX_TRY(real(o, &r, "gbps", 1e-3, 1e6, -1, &m->network_gbps));
    FX_TRY(real(o, &r, "domain_gbps", 1e-3, 1e6, -1, &m->network_domain_gbps));
    return real(o, &r, "latency_us", 0, 1e6, -1, &m->network_latency_us);
}

static fx_status read_host(const json_t *root, const place *p, fx_machine *m)
{
    json_t *o;
    FX_TRY(object(root, p, "host", true, "|launch_us|post_us|step_us|png_ms_per_mpixel|", &o));
    const place q = inside(p, "host", -1);
    FX_TRY(real(o, &q, "launch_us", 0, 1e6, -1, &m->host_launch_us));
    FX_TRY(real(o, &q, "post_us", 0, 1e6, -1, &m->host_post_us));
    FX_TRY(real(o, &q, "step_us", 0, 1e6, -1, &m->host_step_us));
    return real(o, &q, "png_ms_per_mpixel", 0, 1e6, -1, &m->png_ms_per_mpixel);
}

static fx_status read_machine(json_t *root, const place *p, fx_machine *m)
{
    char kind[16];
    FX_TRY(known_keys(root, p,
                      "|fluxpar_machine|name|source|kind|units|memory_gib|sustained|peak|gemm|attention|conv|"
                      "rows|weights_gbps|"
                      "op_us|launch_us|host|exchange|domain|network|"));
    FX_TRY(text(root, p, "name", true, m->name, sizeof m->name));
    FX_TRY(text(root, p, "source", false, m->source, sizeof m->source));
    FX_TRY(text(root, p, "kind", true, kind, sizeof kind));
    m->cpu = !strcmp(kind, "cpu");
    if (!m->cpu && strcmp(kind, "gpu")) return refuse(p, "kind", "wanted gpu or cpu");
    FX_TRY(whole(root, p, "units", 1, 65536, -1, &m->units));
    FX_TRY(real(root, p, "memory_gib", 1e-3, 1e6, -1, &m->memory_gib));
    FX_TRY(real(root, p, "sustained", 0.05, 1, 1, &m->sustained));
    FX_TRY(read_peak(root, p, m));
    FX_TRY(read_rates(root, p, "gemm", &m->gemm));
    FX_TRY(read_rates(root, p, "attention", &m->attention));
    FX_TRY(read_rates(root, p, "conv", &m->conv));
    FX_TRY(read_rows(root, p, m));
    FX_TRY(real(root, p, "weights_gbps", 1e-3, 1e6, -1, &m->weights_gbps));
    FX_TRY(real(root, p, "op_us", 0, 1e6, 0, &m->op_us));
    FX_TRY(real(root, p, "launch_us", 0, 1e6, 0, &m->launch_us));
    FX_TRY(read_host(root, p, m));
    FX_TRY(read_exchange(root, p, m));
    return read_topology(root, p, m);
}

fx_status fx_machine_parse(const char *data, size_t size, const char *path, bool topology, fx_machine *m)
{
    json_error_t error;
    const char *version = topology ? "fluxpar_topology" : "fluxpar_machine";
    const place p = {.path = path};
    json_t *root = fx_json_parse(data, size, &error);
    FX_CHECK(root, FX_EFORMAT, "%s is not valid JSON; line %d: %s", path, error.line, error.text);
    fx_status st = FX_OK;
    const json_t *v = json_object_get(root, version);
    if (!json_is_integer(v) || json_integer_value(v) != 1)
        st = refuse(&p, version, "wanted 1, the version of the format");
    if (!st && topology) st = known_keys(root, &p, "|fluxpar_topology|name|domain|network|");
    if (!st) st = topology ? read_topology(root, &p, m) : read_machine(root, &p, m);
    json_decref(root);
    return st;
}

/* ---- writing ---- */

static json_t *rates_json(const fx_rates *rates)
{
    json_t *list = json_array();
    for (int i = 0; i < rates->n; i++) {
        const fx_rate *r = &rates->r[i];
        json_array_append_new(list, json_pack("{s:s, s:[I,I], s:f, s:f}", "dtype", fx_rate_name(r->dtype),
                                              "tile", (json_int_t)r->rows, (json_int_t)r->cols, "tflops",
                                              r->tflops, "tile_us", r->tile_us));
    }
    return list;
}

static json_t *machine_json(const fx_machine *m)
{
    json_t *tflops = json_object(), *ops = json_object(), *by = json_object();
    for (int i = 0; i < FX_RATE_DTYPES; i++)
        if (m->peak_tflops[i] > 0)
            json_object_set_new(tflops, fx_rate_name((fx_rate_dtype)i), json_real(m->peak_tflops[i]));
    for (int i = 0; i < m->ops; i++) json_object_set_new(ops, m->op[i].name, json_real(m->op[i].gbps));
    for (int i = 0; i < FX_BYS; i++)
        if (m->by[i].given)
            json_object_set_new(by, fx_by_name((fx_by)i),
                                json_pack("{s:f, s:f, s:f, s:b}", "start_us", m->by[i].start_us, "wait_us",
                                          m->by[i].wait_us, "gbps", m->by[i].gbps, "overlap",
                                          (int)m->by[i].overlap));
    json_t *root = json_pack(
        "{s:i, s:s, s:s, s:s, s:I, s:f, s:f, s:{s:f, s:f, s:o}, s:o, s:o, s:o, s:{s:f, s:o}, s:f, s:f, s:f}",
        "fluxpar_machine", 1, "name", m->name, "source", m->source, "kind", m->cpu ? "cpu" : "gpu", "units",
        (json_int_t)m->units, "memory_gib", m->memory_gib, "sustained", m->sustained, "peak", "memory_gbps",
        m->peak_gbps, "link_gbps", m->peak_link_gbps, "tflops", tflops, "gemm", rates_json(&m->gemm),
        "attention", rates_json(&m->attention), "conv", rates_json(&m->conv), "rows", "gbps", m->rows_gbps,
        "ops", ops, "weights_gbps", m->weights_gbps, "op_us", m->op_us, "launch_us", m->launch_us);
    json_object_set_new(root, "host",
                        json_pack("{s:f, s:f, s:f, s:f}", "launch_us", m->host_launch_us, "post_us",
                                  m->host_post_us, "step_us", m->host_step_us, "png_ms_per_mpixel",
                                  m->png_ms_per_mpixel));
    json_object_set_new(root, "exchange", by);
    json_object_set_new(
        root, "domain",
        json_pack("{s:I, s:f}", "ranks", (json_int_t)m->domain_ranks, "latency_us", m->domain_latency_us));
    if (m->network_gbps > 0)
        json_object_set_new(root, "network",
                            json_pack("{s:f, s:f, s:f}", "gbps", m->network_gbps, "domain_gbps",
                                      m->network_domain_gbps, "latency_us", m->network_latency_us));
    return root;
}

fx_status fx_machine_write(const fx_machine *m, const char *path, bool overwrite)
{
    int fd;
    json_t *root = machine_json(m);
    char *out = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    json_decref(root);
    FX_CHECK(out, FX_ENOMEM, "no memory for a machine file");
    fx_status st = fx_output_check(path, overwrite);
    if (!st) st = fx_output_begin(path, &fd);
    if (!st) {
        const size_t size = strlen(out);
        out[size] = '\n'; /* in place of the end, which nobody reads any more */
        if (write(fd, out, size + 1) == (ssize_t)(size + 1))
            st = fx_output_commit(path, fd, overwrite);
        else {
            st = FX_FAIL(FX_EWRITE, "%s cannot be written; %s; check the disk", path, strerror(errno));
            fx_output_abort(fd);
        }
    }
    free(out);
    return st;
}
