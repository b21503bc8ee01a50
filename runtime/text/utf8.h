/* Text helpers shared by the two tokenizers: growable buffers, UTF-8 in and out, the white space both agree
 * on. UTF-8 is checked once, where the prompt comes in (fx_utf8_check); everything after it may rely on that.
 */
#ifndef FX_TEXT_UTF8_H
#define FX_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_buf { /* bytes; data is NUL-terminated after any put */
    char *data;
    size_t len, cap;
} fx_buf;
fx_status fx_buf_put(fx_buf *, const void *bytes, size_t n);
fx_status fx_buf_put_char(fx_buf *, int32_t code_point);
void fx_buf_free(fx_buf *);

typedef struct fx_ids {
    int32_t *data;
    size_t len, cap;
} fx_ids;
fx_status fx_ids_put(fx_ids *, int32_t id);
fx_status fx_ids_reserve(fx_ids *, size_t more);
void fx_ids_free(fx_ids *);

/* FX_EINVAL naming the first bad byte, or a prompt longer than FX_PROMPT_MAX; *len is set. */
fx_status fx_prompt_check(const char *utf8, size_t *len);
bool fx_utf8_valid(const char *text, size_t n, size_t *bad); /* *bad: offset of the first bad byte */
/* Code point at text[*pos], which moves on; the text must be valid UTF-8 and *pos < n. */
int32_t fx_utf8_next(const char *text, size_t n, size_t *pos);
/* The 25 code points of Unicode White_Space. */
bool fx_is_space(int32_t code_point);

/* Code point ranges, inclusive and ascending, for what differs between Unicode versions. */
typedef struct fx_code_range {
    int32_t first, last;
} fx_code_range;
bool fx_in_ranges(const fx_code_range *ranges, size_t count, int32_t code_point);

#ifdef __cplusplus
}
#endif
#endif
