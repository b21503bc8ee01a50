/* Embedded prompts that are kept, so that the same prompt is encoded once: what the encoders gave, in host memory, by prompt
 * and shape (which the text length decides). Bounded by bytes and by number; the one that was not used for the longest
 * time goes. What comes back are the bytes that went in. */
#ifndef FX_TEXT_KEPT_H
#define FX_TEXT_KEPT_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_TEXTS_KEPT = 64 };

typedef struct fx_text_kept fx_text_kept;

/* most_bytes 0: nothing is ever kept. FX_ENOMEM. */
fx_status fx_text_kept_open(size_t most_bytes, fx_text_kept **out);
void fx_text_kept_close(fx_text_kept **);
/* t5[t5_len, width] and pooled[1, width] say of which shape and type. */
bool fx_text_kept_has(const fx_text_kept *, const char *prompt, fx_tensor t5, fx_tensor pooled);
/* Of one that is there: its bytes into t5 and pooled. */
fx_status fx_text_kept_fetch(fx_text_kept *, fx_backend *, const char *prompt, fx_tensor t5,
                             fx_tensor pooled);
/* Of one that is not: waits for the device. Where there is no room or no memory nothing is kept, which is no failure. */
fx_status fx_text_kept_keep(fx_text_kept *, fx_backend *, const char *prompt, fx_tensor t5, fx_tensor pooled);
size_t fx_text_kept_bytes(const fx_text_kept *);

#ifdef __cplusplus
}
#endif
#endif
