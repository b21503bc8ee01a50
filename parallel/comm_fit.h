/* Do the devices of a run's ranks fit together? A decision only, from what every rank says of its own, so that all of them decide
 * alike; comm_cards.c gathers the cards. */
#ifndef FX_PARALLEL_COMM_FIT_H
#define FX_PARALLEL_COMM_FIT_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_device_card {
    char uuid[16], host[64], libraries[256]; /* of the device; of the node; texts end with 0 */
    int32_t rank, visible;                   /* visible: devices that the rank sees */
} fx_device_card;

/* FX_EDEVICE: two ranks of a node have the same device, or two ranks run with different libraries; both are named. *alone: some
 * rank sees no device but its own although other ranks are on its node. */
fx_status fx_cards_fit(const fx_device_card all[], int n, bool *alone);

#ifdef __cplusplus
}
#endif
#endif
