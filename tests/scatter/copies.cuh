/* What copy engines move for a rank of a test mesh, as parallel/window_copies.c lists it; for ranks.cuh, which has the mesh. */
#ifndef FX_TESTS_SCATTER_COPIES_CUH
#define FX_TESTS_SCATTER_COPIES_CUH

namespace
{

typedef std::vector<fx_window_copy> copies_list;

/* Staged rows to all others. */
inline copies_list rows_there(mesh &m, int me)
{
    rank_data &r = m.rank[(size_t)me];
    const int64_t local = fx_layout_local(&m.layout, me);
    copies_list list;
    for (int k = 1; k < m.j.ranks; k++) {
        const int to = (me + k) % m.j.ranks;
        for (int s = 0; s < FX_SEGMENTS; s++) {
            const fx_range range = m.layout.part[me][s];
            const int64_t joint = fx_layout_start(&m.layout, s) + range.begin,
                          from = (to - (to > me)) * local + fx_layout_local_start(&m.layout, me, s);
            const size_t bytes = (size_t)(range.count * r.recv_row) * 2;
            if (bytes)
                list.push_back({m.rank[(size_t)to].recv[0].data() + joint * r.recv_row,
                                r.staged.data() + from * r.recv_row, bytes});
        }
        list.push_back(
            {m.counters[(size_t)to] + (FX_LATE_ROWS - 1) * m.j.ranks + me, r.state + FX_WINDOW_TOLD_ROWS, 4});
    }
    return list;
}

} // namespace

#endif
