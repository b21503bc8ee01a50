/* Bytes as a machine file and as a topology file. What is accepted must be numbers that the predictor can divide by. */
#include "tests/fuzz/fuzz.h"

#include <math.h>

#include "runtime/predict/machine.h"

static void check_rates(const fx_rates *r)
{
    FUZZ_EXPECT(r->n >= 1 && r->n <= FX_MACHINE_RATES);
    for (int i = 0; i < r->n; i++)
        FUZZ_EXPECT(r->r[i].rows > 0 && r->r[i].cols > 0 && r->r[i].tflops > 0 && isfinite(r->r[i].tile_us) &&
                    r->r[i].tile_us >= 0);
}

FUZZ_TARGET(machine)
{
    static fx_machine m, t;
    if (fx_machine_parse((const char *)data, size, "m.json", false, &m) == FX_OK) {
        check_rates(&m.gemm);
        check_rates(&m.attention);
        check_rates(&m.conv);
        FUZZ_EXPECT(m.units > 0 && m.sustained > 0 && m.sustained <= 1 && m.memory_gib > 0);
        FUZZ_EXPECT(m.rows_gbps > 0 && m.weights_gbps > 0 && m.peak_gbps > 0 && m.peak_link_gbps > 0 &&
                    m.domain_ranks > 0);
        FUZZ_EXPECT(m.ops >= 0 && m.ops <= FX_MACHINE_OPS);
        for (int i = 0; i < FX_BYS; i++) FUZZ_EXPECT(!m.by[i].given || m.by[i].gbps > 0);
    }
    if (fx_machine_parse((const char *)data, size, "t.json", true, &t) == FX_OK)
        FUZZ_EXPECT(t.domain_ranks > 0 && isfinite(t.network_gbps));
    return 0;
}
