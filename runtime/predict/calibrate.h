/* Measures the machine file of the machine at hand: rates of a few classes of shapes on all ranks at once, so that what they
 * share (memory, power) is shared, and the way between ranks. */
#ifndef FX_PREDICT_CALIBRATE_H
#define FX_PREDICT_CALIBRATE_H

#include "kernels/ops.h"
#include "parallel/comm.h"
#include "runtime/predict/machine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Collective; the same result on every rank; be has no arena. png_s_per_pixel is the caller's. Takes seconds. */
fx_status fx_calibrate(fx_comm *, fx_backend *be, double png_s_per_pixel, fx_machine *out);

#ifdef __cplusplus
}
#endif
#endif
