/* Elementwise work on token rows: residual sums, activations, gates, table lookup. f64. */
#include "kernels/ref/ref_ops.h"

#include <math.h>

double fx_ref_act(double x, fx_act act)
{
    const double pi = 3.14159265358979323846;
    switch (act) {
    case FX_ACT_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
    case FX_ACT_GELU_ERF: return 0.5 * x * (1 + erf(x / sqrt(2.0)));
    case FX_ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case FX_ACT_SILU: return x / (1 + exp(-x));
    case FX_ACT_NONE: break;
    }
    return x;
}

fx_status fx_ref_gate_add(fx_backend *be, fx_tensor x, fx_tensor gate, fx_tensor y)
{
    (void)be;
    for (int64_t i = 0; i < x.shape[0]; i++)
        for (int64_t c = 0; c < x.shape[1]; c++) ref_row(x, i)[c] += ref_load(gate, c) * ref_row(y, i)[c];
    return FX_OK;
}

fx_status fx_ref_gate_norm(fx_backend *be, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                           fx_tensor shift, fx_tensor scale, float eps)
{
    FX_TRY(fx_ref_gate_add(be, x, gate, y));
    return fx_ref_norm_mod(be, h, x, shift, scale, eps);
}

fx_status fx_ref_axpy(fx_backend *be, fx_tensor x, fx_tensor y, float a)
{
    (void)be;
    for (int64_t i = 0; i < fx_numel(x); i++) {
        const int64_t at = ref_offset(x, i);
        ref_store(x, at, ref_load(x, at) + (double)a * ref_load(y, ref_offset(y, i)));
    }
    return FX_OK;
}

fx_status fx_ref_activate(fx_backend *be, fx_tensor y, fx_tensor x, fx_act act)
{
    (void)be;
    for (int64_t i = 0; i < x.shape[0]; i++)
        for (int64_t c = 0; c < x.shape[1]; c++) ref_row(y, i)[c] = fx_ref_act(ref_row(x, i)[c], act);
    return FX_OK;
}

fx_status fx_ref_glu(fx_backend *be, fx_tensor y, fx_tensor a, fx_tensor b, fx_act act)
{
    (void)be;
    for (int64_t i = 0; i < a.shape[0]; i++)
        for (int64_t c = 0; c < a.shape[1]; c++)
            ref_row(y, i)[c] = fx_ref_act(ref_row(a, i)[c], act) * ref_row(b, i)[c];
    return FX_OK;
}

fx_status fx_ref_embed(fx_backend *be, fx_tensor y, fx_tensor table, fx_tensor ids)
{
    (void)be;
    for (int64_t i = 0; i < y.shape[0]; i++) {
        const double *row = ref_row(table, ((const int32_t *)ids.data)[i]);
        for (int64_t c = 0; c < y.shape[1]; c++) ref_row(y, i)[c] = row[c];
    }
    return FX_OK;
}
