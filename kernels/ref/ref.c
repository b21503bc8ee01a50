/* The reference backend's table, and what every backend does for host memory: upload, download, sync. */
#include "kernels/ref/ref.h"

#include "kernels/ref/ref_ops.h"

#include <stdlib.h>
#include <string.h>

fx_status fx_ref_upload(fx_backend *be, fx_tensor device, const void *host)
{
    (void)be;
    memcpy(device.data, host, fx_bytes(device));
    return FX_OK;
}

fx_status fx_ref_download(fx_backend *be, void *host, fx_tensor device)
{
    (void)be;
    memcpy(host, device.data, fx_bytes(device));
    return FX_OK;
}

fx_status fx_ref_sync(fx_backend *be)
{
    (void)be;
    return FX_OK;
}

static void ref_close(fx_backend *be)
{
    (void)be;
}

static const fx_ops ref_ops = {
    .name = "ref",
    .packed_bytes = fx_ref_packed_bytes,
    .pack = fx_ref_pack,
    .linear_scratch = fx_ref_linear_scratch,
    .conv2d_scratch = fx_ref_conv2d_scratch,
    .attention_scratch = fx_ref_attention_scratch,
    .linear = fx_ref_linear,
    .conv2d = fx_ref_conv2d,
    .attention = fx_ref_attention,
    .attention_merge = fx_ref_attention_merge,
    .norm_mod = fx_ref_norm_mod,
    .layer_norm = fx_ref_layer_norm,
    .rms_norm = fx_ref_rms_norm,
    .gate_add = fx_ref_gate_add,
    .gate_norm = fx_ref_gate_norm,
    .qk_norm_rope = fx_ref_qk_norm_rope,
    .axpy = fx_ref_axpy,
    .activate = fx_ref_activate,
    .glu = fx_ref_glu,
    .embed = fx_ref_embed,
    .copy = fx_ref_copy,
    .row_stats = fx_ref_row_stats,
    .group_norm = fx_ref_group_norm,
    .upsample2x = fx_ref_upsample2x,
    .to_rgb8 = fx_ref_to_rgb8,
    .count_nonfinite = fx_ref_count_nonfinite,
    .upload = fx_ref_upload,
    .download = fx_ref_download,
    .sync = fx_ref_sync,
    .close = ref_close,
};

fx_status fx_ref_open(int threads, fx_backend **out)
{
    *out = NULL;
    fx_backend *be = (fx_backend *)calloc(1, sizeof *be);
    FX_CHECK(be, FX_ENOMEM, "ref backend: %zu bytes are not available", sizeof *be);
    *be = (fx_backend){.ops = &ref_ops,
                       .dtype = FX_F64,
                       .stream = FX_F64,
                       .threads = threads,
                       .rows_exact = true,
                       .plain_rows = true};
    *out = be;
    return FX_OK;
}
