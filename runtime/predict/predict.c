/* The step at the clock that power allows, and what stands around it: text, decoder, memory, the physical limit. Called by
 * search.c. */
#include <math.h>

#include "runtime/predict/simulate.h"

static double part_us(const fx_work *w, const fx_cost_model *c, const fx_by_rate *by, fx_picture_part part)
{
    double most = 0;
    for (int i = 0; i < w->classes; i++) {
        const fx_program *p = &w->program[i];
        double us = 0;
        for (int n = 0; n < p->n; n++) {
            const fx_job *j = &p->job[n];
            if (j->part != part) continue;
            if (j->kind == FX_JOB_OP) us += fx_cost_job(c, j).us + c->m->launch_us;
            if (j->kind == FX_JOB_HOST) us += c->m->host_launch_us;
            for (int k = j->in; j->kind == FX_JOB_POST && k < j->in + j->ins; k++)
                us += p->peers[k].bytes / (1e3 * (p->peers[k].far ? c->m->network_gbps : by->gbps));
            if (j->kind == FX_JOB_WAIT)
                us += by->start_us + by->wait_us + (w->crosses ? c->m->network_latency_us : 0);
        }
        most = fmax(most, us);
    }
    return most;
}

/* No schedule is faster on this hardware: all FLOP at peak on the rank that has most of them, or its weights at the memory's, or
 * the rows it sends at the link's. */
static double limit_us(const fx_work *w, const fx_cost_model *c)
{
    const fx_machine *m = c->m;
    const double peak =
                     m->peak_tflops[c->dtype] > 0 ? m->peak_tflops[c->dtype] : m->peak_tflops[FX_RATE_BF16],
                 attention_peak = m->peak_tflops[FX_RATE_BF16] > 0 ? m->peak_tflops[FX_RATE_BF16] : peak;
    double most = 0;
    for (int i = 0; i < w->classes; i++) {
        const fx_program *p = &w->program[i];
        double flop_us = 0, weights = 0, near = 0, far = 0;
        for (int n = 0; n < p->n; n++) {
            const fx_job *j = &p->job[n];
            if (j->part != FX_PART_STEP) continue;
            const double rate = j->work == FX_WORK_GEMM ? peak : attention_peak;
            if (rate > 0) flop_us += fx_job_flop(j) / (rate * 1e6 * c->share);
            if (j->work == FX_WORK_GEMM && j->m > 0)
                weights += j->weight_bytes * fx_cost_weight_share(c->dtype);
            for (int k = j->out; k < j->out + j->outs; k++)
                *(p->peers[k].far ? &far : &near) += p->peers[k].bytes;
        }
        most = fmax(most, fmax(flop_us, weights / (m->peak_gbps * 1e3 * c->share)));
        most = fmax(most, near / (m->peak_link_gbps * 1e3));
        if (far > 0) most = fmax(most, far / (m->network_gbps * 1e3));
    }
    return most;
}

/* Power limits the clock: what products and attention take of it goes with the share of the time in which they run, and with the
 * clock's square. With T their time at full clock and c all other time, the step t satisfies t (t - c) = (T / sustained)^2. */
static double clock_of(const fx_machine *m, const fx_prediction *p)
{
    const double full = p->time_us[FX_TIME_GEMM] + p->time_us[FX_TIME_ATTENTION], other = p->step_us - full,
                 at = full / m->sustained;
    const double slow = (sqrt(other * other + 4 * at * at) - other) / 2;
    return slow > full ? full / slow : 1;
}

fx_status fx_simulate(const fx_work *w, const fx_cost_model *given, fx_by by, const fx_span_sink *sink,
                      fx_prediction *out)
{
    fx_cost_model c = *given;
    if (c.m->sustained < 1) {
        FX_TRY(fx_simulate_once(w, &c, by, NULL, out));
        c.clock = clock_of(c.m, out);
    }
    FX_TRY(fx_simulate_once(w, &c, by, sink, out));
    const fx_by_rate rate = w->ranks > 1 ? c.m->by[by] : (fx_by_rate){.gbps = 1};
    out->limit_us = limit_us(w, &c);
    out->text_us = part_us(w, &c, &rate, FX_PART_TEXT);
    out->vae_us = part_us(w, &c, &rate, FX_PART_VAE);
    for (int i = 0; i < w->classes; i++)
        if (w->program[i].arena_bytes > out->arena_bytes) out->arena_bytes = w->program[i].arena_bytes;
    return FX_OK;
}
