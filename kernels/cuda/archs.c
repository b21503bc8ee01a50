/* Which devices the code of a build runs on; see slots.h. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/slots.h"

bool fx_cuda_has_code(const char *archs, int sm)
{
    for (const char *p = archs; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        char *rest;
        const int n = (int)strtol(p, &rest, 10);
        const bool only = *rest == 'a', real = *rest == 'f' || !strncmp(rest, "-real", 5);
        if (only ? sm == n : sm >= n && (!real || sm / 10 == n / 10)) return true;
    }
    return false;
}
