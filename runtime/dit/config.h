/* The transformer's shapes, from transformer/config.json. No shape is a constant of the program. */
#ifndef FX_DIT_CONFIG_H
#define FX_DIT_CONFIG_H

#include "runtime/core/status.h"
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_ROPE_AXES = 3, FX_MOD_DOUBLE = 6, FX_MOD_SINGLE = 3, FX_MOD_FINAL = 2, FX_TIME_CHANNELS = 256 };

typedef struct fx_dit_config {
    int64_t in_channels, out_channels; /* packed latent channels (4 x latent channels) */
    int64_t heads, head_dim, hidden;   /* hidden = heads * head_dim */
    int64_t mlp;                       /* 4 * hidden */
    int64_t joint_dim, pooled_dim;     /* T5 and CLIP widths */
    int64_t axis_dim[FX_ROPE_AXES];    /* sum = head_dim, each even */
    int64_t sample_size;               /* default size in latents; 0: not given */
    int32_t double_blocks, single_blocks;
    bool guidance;
} fx_dit_config;

/* FX_EFORMAT names a value that is not implemented (patch_size other than 1, Fill, Canny, Depth). */
fx_status fx_dit_config_load(const char *model_dir, fx_dit_config *out);
/* FLUX.1's published sizes with the given depth (19 + 38 for the real models). */
fx_dit_config fx_dit_config_flux(bool guidance, int double_blocks, int single_blocks);

#ifdef __cplusplus
}
#endif
#endif
