/* CLIP's text normalisation: NFC, white space runs to one space, lower case per character. */
#ifndef FX_TEXT_CLIP_NORMALIZE_H
#define FX_TEXT_CLIP_NORMALIZE_H

#include "runtime/text/utf8.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Appends the normalised text (valid UTF-8 in, valid UTF-8 out). */
fx_status fx_clip_normalize(const char *text, size_t len, fx_buf *out);

#ifdef __cplusplus
}
#endif
#endif
