/* What pipeline.c (pictures) and pipeline_open.c (opening, closing, teams) share. */
#ifndef FX_PIPELINE_INTERNAL_H
#define FX_PIPELINE_INTERNAL_H

#include "parallel/node_share.h"
#include "runtime/gallery.h"
#include "runtime/model.h"
#include "runtime/pipeline.h"
#include "runtime/sizes.h"
#include "runtime/text/kept.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fx_pipeline {
    fx_pipeline_options opt;
    fx_comm *comm; /* of the team that makes pictures; sizes.whole: of all ranks, borrowed */
    fx_backend *be;
    fx_share share;
    fx_model model;
    fx_model_facts facts;
    double load_s;
    fx_sizes sizes;
    fx_gallery gallery;
    fx_text_ids ids;
    fx_text_kept *kept; /* embedded prompts */
    bool text_kept;     /* that of the current picture was among them */
    uint8_t *rgb;       /* rank 0: a picture of the open size */
    size_t rgb_bytes;
    fx_rank_report *reports;
};

#ifdef __cplusplus
}
#endif
#endif
