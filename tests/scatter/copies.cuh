/* What copy engines move for a rank of a test mesh, as parallel/window_copies.c lists it; for ranks.cuh, which has the mesh. */
#ifndef FX_TESTS_SCATTER_COPIES_CUH
#define FX_TESTS_SCATTER_COPIES_CUH

namespace
{

typedef std::vector<fx_window_copy> copies_list;

inline fx_window_copy word_for(mesh &m, int me, int rank, int late, int word)
{
    return {
        m.counters[(size_t)rank] + (late - 1) * m.j.ranks + me, m.rank[(size_t)me].state + word, 4, 1, 4, 4};
}

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
                                r.staged.data() + from * r.recv_row, bytes, 1, bytes, bytes});
        }
        list.push_back(word_for(m, me, to, FX_LATE_ROWS, FX_WINDOW_TOLD_ROWS));
    }
    return list;
}

/* o: of all rows, this rank's heads; to all owners, this rank last. */
inline copies_list rows_back(mesh &m, int me, const uint16_t *o, size_t pitch)
{
    const size_t width = (size_t)(m.j.heads / m.j.ulysses * m.j.dim);
    copies_list list;
    for (int k = 1; k <= m.j.ranks; k++) {
        const int to = (me + k) % m.j.ranks;
        for (const fx_window_owner &x : m.rank[(size_t)me].owners)
            if (x.rank == to)
                list.push_back({m.output[(size_t)to] + (size_t)x.row * pitch + (size_t)me * width,
                                o + (size_t)x.begin * width, width * 2, (size_t)x.count, pitch * 2,
                                width * 2});
        if (to != me) list.push_back(word_for(m, me, to, FX_LATE_OUTPUT, FX_WINDOW_TOLD_OUTPUT));
    }
    return list;
}

} // namespace

#endif
