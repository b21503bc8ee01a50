/* Between the machine (twin.cc), what its threads store far away (far.cc) and copies beside its launches (beside.cc). */
#ifndef FX_KERNELS_TWIN_FAR_CUH
#define FX_KERNELS_TWIN_FAR_CUH

#include <cstdint>

uint64_t fx_twin_serial(); /* of the running fiber: no other ever had it */
uint64_t fx_twin_draw();
void fx_twin_fault(const char *what); /* the launch fails with it */

void fx_twin_far_meet();   /* the running fiber's CTA has met at a barrier */
void fx_twin_far_end();    /* of a launch */
void fx_twin_far_forget(); /* of a launch that has failed */

void fx_twin_beside_some(); /* a launch begins, or a kernel waits: copies go on, or not */

#endif
