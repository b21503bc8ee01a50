/* Who looks on while a picture is made: the dump (.npy files, blocks of the first step) and the request's onlooker. */
#ifndef FX_GALLERY_H
#define FX_GALLERY_H

#include "runtime/session.h"
#include "runtime/text/encode.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_gallery {
    const fx_session *s;
    const fx_request *r;
    int step;
} fx_gallery;

/* Someone wants to see what happens within or after steps. */
bool fx_gallery_open_in_steps(const fx_gallery *);
/* Sets the transformer's observer for the step. */
void fx_gallery_begin_step(fx_gallery *, fx_dit *, int step);
/* Each shows one moment to whom it concerns; collective. */
fx_status fx_gallery_text(const fx_gallery *, const fx_text_ids *); /* ids, sigmas, text vectors, noise */
fx_status fx_gallery_prepared(const fx_gallery *);                  /* embedded text, noise */
fx_status fx_gallery_step(const fx_gallery *);                      /* prediction and latents */
fx_status fx_gallery_rgb(const fx_gallery *, const uint8_t *rgb);   /* the picture, on rank 0 */

#ifdef __cplusplus
}
#endif
#endif
