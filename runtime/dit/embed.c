/* Position and time embeddings, computed on the host once per picture: rotary angles of this rank's rows and
 * the sinusoidal features of timesteps and guidance. Source: FluxPosEmbed and get_timestep_embedding of
 * diffusers (angles in f64, features in f32, order [cos, sin]). */
#include "runtime/dit/dit.h"

#include <math.h>
#include <stdlib.h>

static const double rope_theta = 10000.0;

/* One row: position id per axis -> (cos, sin) pairs. */
static void rope_row(const fx_dit_config *c, const int64_t id[FX_ROPE_AXES], float *cs)
{
    for (int axis = 0; axis < FX_ROPE_AXES; axis++) {
        const int64_t dim = c->axis_dim[axis];
        for (int64_t i = 0; i < dim; i += 2) {
            const double angle = (double)id[axis] / pow(rope_theta, (double)i / (double)dim);
            *cs++ = (float)cos(angle);
            *cs++ = (float)sin(angle);
        }
    }
}

fx_status fx_rope_fill(fx_dit *d, int64_t grid_width)
{
    if (fx_planning(d->be) || d->cs.shape[0] == 0) return FX_OK;
    const fx_dit_config *c = d->cfg;
    const fx_range image = d->layout->part[d->rank][FX_IMAGE];
    float *host = malloc(fx_bytes(d->cs));
    FX_CHECK(host, FX_ENOMEM, "no memory for rotary angles (%zu bytes)", fx_bytes(d->cs));
    float *row = host;
    const int64_t origin[FX_ROPE_AXES] = {0, 0, 0}; /* text tokens all sit at position 0 */
    for (int64_t t = 0; t < d->text_rows; t++, row += c->head_dim) rope_row(c, origin, row);
    for (int64_t t = image.begin; t < image.begin + image.count; t++, row += c->head_dim) {
        const int64_t id[FX_ROPE_AXES] = {0, t / grid_width, t % grid_width};
        rope_row(c, id, row);
    }
    const fx_status st = fx_upload(d->be, d->cs, host);
    free(host);
    return st;
}

void fx_time_features(const float *t, int n, float *out)
{
    const int half = FX_TIME_CHANNELS / 2;
    const float log_period = (float)-log(10000.0);
    for (int i = 0; i < n; i++) {
        const float scaled = t[i] * 1000.0f;
        for (int f = 0; f < half; f++) {
            const float angle = scaled * expf(log_period * (float)f / (float)half);
            out[i * FX_TIME_CHANNELS + f] = (float)cos((double)angle);
            out[i * FX_TIME_CHANNELS + half + f] = (float)sin((double)angle);
        }
    }
}
