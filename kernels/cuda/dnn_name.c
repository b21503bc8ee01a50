/* What a plan of cuDNN launches, read from the library's own text of it: engine and kernel by name, so that a slow kernel for
 * older devices is noticed. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/internal.h"
#include "runtime/core/cache.h"

char *fx_dnn_text(cudnnBackendDescriptor_t plan, size_t *bytes)
{
    int64_t n = 0, got = 0;
    if (cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &n,
                                 NULL) != CUDNN_STATUS_SUCCESS ||
        n <= 0 || n > FX_CACHE_MAX)
        return NULL;
    char *json = calloc(1, (size_t)n + 1);
    if (json && cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                         n, &got, json) == CUDNN_STATUS_SUCCESS) {
        *bytes = (size_t)got;
        return json;
    }
    free(json);
    return NULL;
}

/* The word after a mark, up to an end that JSON puts there; "": no such mark. */
static void word_after(const char *text, size_t bytes, const char *mark, const char *ends, char *out,
                       size_t room)
{
    const char *at = memmem(text, bytes, mark, strlen(mark));
    size_t n = 0;
    if (at)
        for (at += strlen(mark); n + 1 < room && at + n < text + bytes && !strchr(ends, at[n]); n++)
            out[n] = at[n];
    out[n] = 0;
}

fx_dnn_name fx_dnn_name_of(const char *text, size_t bytes)
{
    fx_dnn_name name;
    char engine[24];
    word_after(text, bytes, "\"engine\":{\"engineId\":", ",}", engine, sizeof engine);
    word_after(text, bytes, "\"kernelName\":\"", "\"", name.kernel, sizeof name.kernel);
    name.engine = *engine ? strtoll(engine, NULL, 10) : -1;
    return name;
}

bool fx_dnn_refused(const fx_cuda *c, const fx_dnn_name *name)
{
    const char *allow = getenv("FLUXPAR_ALLOW_SM80");
    return c->sm >= 90 && strstr(name->kernel, "sm80") && !(allow && !strcmp(allow, "1"));
}
