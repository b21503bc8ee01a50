/* The driver's management library: what the CUDA runtime does not tell. Opened when first asked for, never linked: machines
 * without a driver have none. */
#ifndef FX_KERNELS_CUDA_MANAGEMENT_H
#define FX_KERNELS_CUDA_MANAGEMENT_H

#include "kernels/devices.h"
#include <stdbool.h>

void fx_cuda_health(const fx_device_facts *, fx_device_health *);
/* NVLink joins the two; false also where nobody knows. */
bool fx_cuda_nvlink(const fx_device_facts *a, const fx_device_facts *b);

#endif
