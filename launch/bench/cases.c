/* --meshes LIST; see bench.h. "2x1:layout=stream:threads=1,auto": items between commas; an item is a mesh with flags that only
 * it has, or one of the words auto and all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/bench/bench.h"
#include "parallel/mesh.h"

typedef struct list {
    const fx_options *o;
    int ranks, heads, n;
    fx_bench_case *cases; /* [FX_BENCH_CASES] */
} list;

/* Flags that a case may have for itself: how a picture is made, not which. */
static const char own_flags[] = "|layout|exact|exchange|dtype|backend|threads|no-graphs|";

static fx_status set_flag(fx_bench_case *c, char *word)
{
    char key[40], *value = strchr(word, '=');
    if (value) *value++ = 0;
    const bool known = snprintf(key, sizeof key, "|%s|", word) < (int)sizeof key && strstr(own_flags, key);
    FX_CHECK(
        known && *word && !strchr(word, '|'), FX_EINVAL,
        "--meshes: '%s' in %s is none of layout, exact, exchange, dtype, backend, threads, no-graphs; write "
        "ULYSSESxRING:FLAG=VALUE",
        word, c->name);
    return fx_options_set(&c->used, word, value);
}

/* "2x1", or "2": the default mesh of so many ranks. */
static fx_status read_mesh(const list *l, const char *word, fx_mesh *out)
{
    char end;
    int u = 0, r = 0;
    const int n = word && strlen(word) < 12 && strspn(word, "0123456789x") == strlen(word)
                      ? sscanf(word, "%dx%d%c", &u, &r, &end)
                      : 0;
    const bool one = n == 1 && !strchr(word, 'x');
    if (one) r = 1;
    FX_CHECK((n == 2 || one) && u >= 1 && r >= 1 && u <= 65536 && r <= 65536, FX_EINVAL,
             "--meshes: '%s' is no mesh; write ULYSSESxRING, as 2x1, or RANKS, or auto, or all",
             word ? word : "");
    FX_CHECK((int64_t)u * r <= l->ranks, FX_EINVAL,
             "--meshes: %s needs %lld ranks; there %s %d; start more with mpirun -np, or leave it out", word,
             (long long)u * r, l->ranks == 1 ? "is" : "are", l->ranks);
    return fx_mesh_make(u * r, l->heads, one ? 0 : u, one ? 0 : r, out);
}

static fx_status add(list *l, const char *item, size_t length)
{
    fx_bench_case *c = &l->cases[l->n];
    char text[sizeof c->name], *next = NULL;
    fx_mesh mesh;
    FX_CHECK(l->n < FX_BENCH_CASES, FX_EINVAL, "--meshes: more than %d meshes", FX_BENCH_CASES);
    FX_CHECK(length + 12 < sizeof text, FX_EINVAL, "--meshes: an item of %zu characters", length);
    *c = (fx_bench_case){.base = -1, .used = *l->o};
    memcpy(text, item, length);
    text[length] = 0;
    FX_TRY(read_mesh(l, strtok_r(text, ":", &next), &mesh));
    snprintf(c->name, sizeof c->name, "%dx%d%.*s", mesh.ulysses, mesh.ring, (int)(length - strlen(text)),
             item + strlen(text));
    c->ranks = mesh.ranks;
    c->used.ulysses = mesh.ulysses;
    c->used.ring = mesh.ring;
    for (char *word = strtok_r(NULL, ":", &next); word; word = strtok_r(NULL, ":", &next))
        FX_TRY(set_flag(c, word));
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->cases[i].name, c->name)) return FX_OK; /* named twice */
    l->n++;
    return FX_OK;
}

static fx_status add_mesh(list *l, int ulysses, int ring)
{
    char name[32];
    const int length = snprintf(name, sizeof name, "%dx%d", ulysses, ring);
    return add(l, name, (size_t)length);
}

static fx_status add_ranks(list *l, int ranks, bool all)
{
    char name[16];
    FX_TRY(add(l, name, (size_t)snprintf(name, sizeof name, "%d", ranks)));
    for (int u = 1; all && u <= ranks; u++)
        if (ranks % u == 0 && l->heads % u == 0) FX_TRY(add_mesh(l, u, ranks / u));
    return FX_OK;
}

static fx_status add_automatic(list *l, bool all)
{
    for (int ranks = 1; ranks < l->ranks; ranks *= 2) FX_TRY(add_ranks(l, ranks, all));
    return add_ranks(l, l->ranks, all);
}

static fx_status add_item(list *l, const char *at, size_t length)
{
    if (length == 4 && !strncmp(at, "auto", 4)) return add_automatic(l, false);
    if (length == 3 && !strncmp(at, "all", 3)) return add_automatic(l, true);
    return add(l, at, length);
}

/* One rank first: the others are compared with it. */
static fx_status read_list(list *l)
{
    const char *at = l->o->meshes ? l->o->meshes : "auto";
    const bool first =
        !strncmp(at, "1x1", 3) || !strncmp(at, "a", 1) || (at[0] == '1' && strchr(":,", at[1]));
    if (!first) FX_TRY(add_mesh(l, 1, 1));
    for (;;) {
        const size_t length = strcspn(at, ",");
        FX_TRY(add_item(l, at, length));
        if (!at[length]) return FX_OK;
        at += length + 1;
    }
}

fx_status fx_bench_cases(const fx_options *o, int ranks, int heads, fx_bench_case **out, int *n)
{
    list l = {.o = o, .ranks = ranks, .heads = heads, .cases = calloc(FX_BENCH_CASES, sizeof *l.cases)};
    FX_CHECK(l.cases, FX_ENOMEM, "no memory for the meshes");
    const fx_status st = read_list(&l);
    if (st) free(l.cases);
    *out = st ? NULL : l.cases;
    *n = l.n;
    return st;
}

void fx_bench_bases(fx_bench_case *c, int n)
{
    for (int i = 0; i < n; i++) {
        c[i].base = -1;
        for (int k = 0; k <= i && c[i].base < 0; k++)
            if (c[k].ranks == 1 && !strcmp(c[k].used.dtype, c[i].used.dtype) &&
                !strcmp(c[k].used.backend, c[i].used.backend))
                c[i].base = k;
    }
}
