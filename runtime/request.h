/* Defaults and range checks of a request; used by pipeline.c. */
#ifndef FX_REQUEST_H
#define FX_REQUEST_H

#include "runtime/model.h"
#include "runtime/pipeline.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name: "width" or "height"; FX_EINVAL names the nearest two sizes. */
fx_status fx_request_check_side(const char *name, int value, int multiple);
/* What follows from the model alone; mesh, layout, threads, exact and backend are left empty. */
void fx_request_facts(const fx_model *, fx_model_facts *);
fx_status fx_request_complete(const fx_model_facts *, fx_request *);

#ifdef __cplusplus
}
#endif
#endif
