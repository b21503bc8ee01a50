/* Pictures by rows: halo, gathers and moves between two splits against the whole picture, for even, thin,
 * ragged and empty slabs. Run under mpirun by tests/sh_mpi.sh. */
#include <math.h>

#include "parallel/halo.h"
#include "tests/test_ranks.h"

static float pixel(int64_t row, int64_t i)
{
    return (float)sin((double)(row * 15 + i) * 12.9898);
}

/* Rows over ranks: even; thin (fewer rows than ranks); all on one rank; ragged with holes. */
static int64_t make_split(int kind, int64_t rows, int ranks, fx_range out[])
{
    int64_t begin = 0;
    for (int r = 0; r < ranks; r++) {
        int64_t n = 0;
        if (kind == 0)
            n = fx_split_even(rows, ranks, r).count;
        else if (kind == 1)
            n = r == ranks - 1 ? rows : 0;
        else if (kind == 2)
            n = r == ranks - 1 ? rows - begin : r % 2 ? 0 : begin + 3 <= rows ? 3 : 0;
        else
            n = r % 3 == 1 ? 0 : begin < rows ? 1 : 0;
        if (kind == 3 && r == ranks - 1) n = rows - begin;
        out[r] = (fx_range){begin, n};
        begin += n;
    }
    return begin;
}

enum { W = 5, C = 3 };

static void test_halo(fx_comm *comm, fx_backend *be, int kind, int64_t rows, int64_t wide, int top,
                      int bottom)
{
    fx_range range[16];
    const int me = fx_comm_rank(comm);
    make_split(kind, rows, fx_comm_size(comm), range);
    const fx_slabs slabs = {comm, range, rows};
    const int64_t all = top + range[me].count + bottom;
    float *data = malloc((size_t)(all * wide * C + 1) * sizeof *data);
    for (int64_t i = 0; i < all * wide * C; i++) data[i] = NAN;
    for (int64_t r = 0; r < range[me].count; r++)
        for (int64_t i = 0; i < wide * C; i++)
            data[(top + r) * wide * C + i] = pixel(range[me].begin + r, (int)i);
    T_OK(fx_halo_fill(be, &slabs, fx_view3(data, FX_F32, all, wide, C), top, bottom));
    int64_t bad = 0;
    for (int64_t r = 0; r < all; r++)
        for (int64_t i = 0; i < wide * C; i++) {
            const int64_t row = range[me].begin - top + r;
            const bool inside = row >= 0 && row < rows && range[me].count > 0;
            bad += data[r * wide * C + i] != (inside ? pixel(row, (int)i) : 0.0f);
        }
    T_CHECK(bad == 0, "split %d of %d rows, halo %d %d, rank %d: %lld wrong", kind, (int)rows, top, bottom,
            me, (long long)bad);
    free(data);
}

static void test_rows(fx_comm *comm, fx_backend *be, int from, int to, int64_t rows)
{
    fx_range in[16], out[16];
    const int me = fx_comm_rank(comm);
    make_split(from, rows, fx_comm_size(comm), in);
    make_split(to, rows, fx_comm_size(comm), out);
    unsigned char mine[64 * W], moved[64 * W], all[64 * W];
    double stats[64 * 4], all_stats[64 * 4];
    int bad = 0;
    for (int64_t i = 0; i < in[me].count * W; i++) mine[i] = (unsigned char)(in[me].begin * W + i);
    for (int64_t i = 0; i < in[me].count * 4; i++) stats[i] = (double)(in[me].begin * 4 + i);
    T_OK(fx_redistribute(be, comm, in, fx_view2(mine, FX_U8, in[me].count, W), out,
                         fx_view2(moved, FX_U8, out[me].count, W)));
    const fx_slabs slabs = {comm, in, rows};
    T_OK(fx_gather_rows(be, &slabs, fx_view2(mine, FX_U8, in[me].count, W), fx_view2(all, FX_U8, rows, W)));
    T_OK(fx_gather_stats(be, &slabs, fx_view3(stats, FX_F64, in[me].count, 2, 2),
                         fx_view3(all_stats, FX_F64, rows, 2, 2)));
    for (int64_t i = 0; i < out[me].count * W; i++) bad += moved[i] != (unsigned char)(out[me].begin * W + i);
    for (int64_t i = 0; i < rows * W; i++) bad += all[i] != (unsigned char)i;
    for (int64_t i = 0; i < rows * 4; i++) bad += all_stats[i] != (double)i;
    T_CHECK(bad == 0, "splits %d to %d of %d rows, rank %d: %d wrong", from, to, (int)rows, me, bad);
}

static void test_pictures(fx_comm *comm, fx_backend *be)
{
    static const int64_t sizes[] = {1, 2, 5, 16, 37};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int kind = 0; kind < 4; kind++) {
            for (int top = 0; top <= 2; top++)
                for (int bottom = 0; bottom <= 2; bottom++)
                    test_halo(comm, be, kind, sizes[k], W, top, bottom);
            test_halo(comm, be, kind, sizes[k], 3000, 1, 2); /* more than is cleared at a time */
            for (int to = 0; to < 4; to++) test_rows(comm, be, kind, to, sizes[k]);
        }
}

int main(void)
{
    fx_comm *comm;
    fx_backend *be;
    char name[64];
    if (fx_comm_open("auto", 60, &comm) != FX_OK) {
        printf("cannot open: %s\n", fx_error());
        return 2;
    }
    T_OK(fx_backend_open(strstr(fx_backend_list(), "cpu") ? "cpu" : "ref", FX_F32, 1, &be));
    test_pictures(comm, be);
    fx_backend_close(&be);
    snprintf(name, sizeof name, "slabs on %d ranks", fx_comm_size(comm));
    const int rc = test_end_ranks(comm, name);
    fx_comm_finish(&comm);
    return rc;
}
