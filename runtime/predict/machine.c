/* Opens machine files by name; machine_json.c reads and writes what is in them. Called by launch/cmd_plan.c and by the choice
 * of a layout. */
#include "runtime/predict/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"

enum { MAX_BYTES = 1 << 20 };
static const char topology_prefix[] = "topology-";

const char *fx_rate_name(fx_rate_dtype d)
{
    static const char *const name[FX_RATE_DTYPES] = {"bf16", "fp8", "nvfp4", "f32"};
    return name[d];
}

const char *fx_by_name(fx_by by)
{
    static const char *const name[FX_BYS] = {"lsa", "peer", "nccl", "mpi"};
    return name[by];
}

const char *fx_machine_shipped(int i, bool *topology)
{
    if (i < 0 || i >= fx_machine_file_count) return NULL;
    const char *name = fx_machine_files[i].name;
    *topology = !strncmp(name, topology_prefix, strlen(topology_prefix));
    return *topology ? name + strlen(topology_prefix) : name;
}

static void list_shipped(bool topology, char *out, size_t size)
{
    bool is;
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < fx_machine_file_count; i++) {
        const char *name = fx_machine_shipped(i, &is);
        if (is != topology || used + strlen(name) + 2 > size) continue;
        used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "|" : "", name);
    }
}

bool fx_machine_this(char *path, size_t size)
{
    const char *cache = getenv("FLUXPAR_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;
    if (cache && !*cache) return false;
    if (cache)
        n = snprintf(path, size, "%s/machine.json", cache);
    else if (xdg && *xdg)
        n = snprintf(path, size, "%s/fluxpar/machine.json", xdg);
    else if (home && *home)
        n = snprintf(path, size, "%s/.cache/fluxpar/machine.json", home);
    else
        return false;
    return n > 0 && (size_t)n < size;
}

static bool is_path(const char *name)
{
    const size_t n = strlen(name);
    return n > 5 && !strcmp(name + n - 5, ".json");
}

static fx_status load(const char *path, bool topology, fx_machine *m)
{
    char *text;
    size_t size;
    FX_TRY(fx_file_load(path, MAX_BYTES, &text, &size));
    const fx_status st = fx_machine_parse(text, size, path, topology, m);
    free(text);
    return st;
}

static fx_status open_named(const char *name, bool topology, fx_machine *m)
{
    char names[256];
    bool is;
    for (int i = 0; i < fx_machine_file_count; i++) {
        const fx_machine_file *f = &fx_machine_files[i];
        const char *known = fx_machine_shipped(i, &is);
        if (is == topology && !strcmp(known, name))
            return fx_machine_parse((const char *)f->text, f->size, f->name, topology, m);
    }
    if (is_path(name)) return load(name, topology, m);
    list_shipped(topology, names, sizeof names);
    return FX_FAIL(FX_EINVAL, "--%s %s is not known; possible are %s%s, or a file NAME.json",
                   topology ? "topology" : "gpu", name, names, topology ? "" : "|this");
}

fx_status fx_machine_open(const char *name, fx_machine *out)
{
    char path[1024];
    *out = (fx_machine){0};
    if (strcmp(name, "this")) return open_named(name, false, out);
    FX_CHECK(fx_machine_this(path, sizeof path), FX_EINVAL,
             "--gpu this: no folder for results that are kept; set FLUXPAR_CACHE, or name a file");
    return load(path, false, out);
}

fx_status fx_machine_topology(const char *name, fx_machine *m)
{
    return open_named(name, true, m);
}
