/* ranks = ulysses x ring: which pairs exist for a rank count and a head count, and the one to use. Ulysses
 * deals out heads, so its degree divides the heads; what is left of the ranks forms the ring. */
#include "parallel/mesh.h"

#include <stdio.h>

static int gcd(int a, int b)
{
    while (b) {
        const int t = a % b;
        a = b;
        b = t;
    }
    return a;
}

const char *fx_mesh_choices(int ranks, int heads, char *buf, size_t size)
{
    size_t used = 0;
    if (size) buf[0] = 0;
    for (int u = 1; u <= ranks; u++) {
        if (ranks % u || heads % u) continue;
        const int n = snprintf(buf + used, size - used, "%s%dx%d", used ? " " : "", u, ranks / u);
        if (n < 0 || (size_t)n >= size - used) break; /* cut at the end of the buffer, still terminated */
        used += (size_t)n;
    }
    return buf;
}

static fx_status impossible(int ranks, int heads, const char *why)
{
    char choices[256];
    return FX_FAIL(FX_EINVAL, "%s; possible ulysses x ring for %d rank%s: %s", why, ranks,
                   ranks == 1 ? "" : "s", fx_mesh_choices(ranks, heads, choices, sizeof choices));
}

fx_status fx_mesh_make(int ranks, int heads, int ulysses, int ring, fx_mesh *out)
{
    char why[160];
    FX_CHECK(ranks >= 1 && heads >= 1, FX_EINVAL, "a mesh needs ranks and heads, not %d and %d", ranks,
             heads);
    if (ulysses < 0 || ring < 0) {
        snprintf(why, sizeof why, "--%s %d is negative", ulysses < 0 ? "ulysses" : "ring",
                 ulysses < 0 ? ulysses : ring);
        return impossible(ranks, heads, why);
    }
    int u = ulysses, r = ring;
    if (!u && !r) u = gcd(heads, ranks);
    if (!u && r && ranks % r == 0) u = ranks / r;
    if (u && heads % u) {
        if (ulysses)
            snprintf(why, sizeof why, "--ulysses %d does not divide the model's %d heads", u, heads);
        else
            snprintf(why, sizeof why,
                     "--ring %d needs ulysses %d, which does not divide the model's %d heads", r, u, heads);
        return impossible(ranks, heads, why);
    }
    if (!r && u && ranks % u == 0) r = ranks / u;
    if (!u || !r) {
        snprintf(why, sizeof why, "--%s %d does not divide %d rank%s", u ? "ulysses" : "ring", u ? u : r,
                 ranks, ranks == 1 ? "" : "s");
        return impossible(ranks, heads, why);
    }
    if ((long long)u * r != ranks) {
        snprintf(why, sizeof why, "--ulysses %d x --ring %d is not %d rank%s", u, r, ranks,
                 ranks == 1 ? "" : "s");
        return impossible(ranks, heads, why);
    }
    *out = (fx_mesh){ranks, u, r};
    return FX_OK;
}
