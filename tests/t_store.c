/* The weight store: what is declared arrives, packed and stacked as asked, from files and from the generator;
 * wrong shapes are refused before memory is taken; ranks of a node share the work and the pages (here:
 * threads of this process), and a failure of one is a failure of all. The backend is a fake whose packed form
 * is easy to check. */
#include "tests/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "parallel/store.h"
#include "tests/scratch.h"

/* ---- a backend that packs by copying, with a mark of 64 bytes behind ---- */

static atomic_int packs, fail_pack_of; /* fails for the weight with this n */

static size_t fake_bytes(fx_backend *be, const fx_weight *w)
{
    (void)be;
    return (size_t)(w->n * w->k * w->kh * w->kw) * fx_dtype_size(w->dtype) + 64;
}

static fx_status fake_pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    const size_t bytes = fake_bytes(be, w) - 64;
    FX_CHECK(w->n != fail_pack_of, FX_EDEVICE, "pack refused n = %lld", (long long)w->n);
    memcpy(dst, src, bytes);
    memset((char *)dst + bytes, 0x5a, 64);
    packs++;
    return FX_OK;
}

static const fx_ops fake_ops = {.name = "fake", .packed_bytes = fake_bytes, .pack = fake_pack};

static fx_backend fake(fx_dtype dtype, int threads)
{
    return (fx_backend){.ops = &fake_ops, .dtype = dtype, .stream = FX_F32, .threads = threads};
}

/* ---- a checkpoint with a few tensors ---- */

static void put_model(void)
{
    static const char *const header =
        "{\"q.weight\":{\"dtype\":\"BF16\",\"shape\":[4,3],\"data_offsets\":[0,24]},"
        "\"qkv.weight\":{\"dtype\":\"F32\",\"shape\":[6,3],\"data_offsets\":[24,96]},"
        "\"q.bias\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[96,112]},"
        "\"conv.weight\":{\"dtype\":\"F16\",\"shape\":[2,3,2,2],\"data_offsets\":[112,160]},"
        "\"point.weight\":{\"dtype\":\"F32\",\"shape\":[2,3,1,1],\"data_offsets\":[160,184]},"
        "\"table\":{\"dtype\":\"BF16\",\"shape\":[5,2],\"data_offsets\":[184,204]}}";
    unsigned char bytes[2048] = {0};
    _Alignas(8) unsigned char data[204];
    float v[64];
    const size_t n = strlen(header);
    for (int i = 0; i < 64; i++) v[i] = (float)i; /* every tensor counts from 0 */
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(n >> (8 * i));
    memcpy(bytes + 8, header, n);
    fx_convert(data, FX_BF16, v, FX_F32, 12);
    memcpy(data + 24, v, 72);
    memcpy(data + 96, v, 16);
    fx_convert(data + 112, FX_F16, v, FX_F32, 24);
    memcpy(data + 160, v, 24);
    fx_convert(data + 184, FX_BF16, v, FX_F32, 10);
    memcpy(bytes + 8 + n, data, sizeof data);
    put_file(in_scratch("model.safetensors"), bytes, 8 + n + sizeof data);
}

static bool counts_from(const void *data, fx_dtype dtype, int first, int n)
{
    double v[64];
    fx_convert(v, FX_F64, data, dtype, n);
    for (int i = 0; i < n; i++)
        if (v[i] != first + i) return false;
    return true;
}

typedef struct model {
    fx_weight q, stacked, conv, point;
    fx_tensor bias, twice, table, table_f32;
} model;

static fx_status declare(fx_store *s, fx_checkpoint *c, model *m)
{
    const fx_part q = {"q.weight", 0, -1}, bias = {"q.bias", 0, -1}, point = {"point.weight", 0, -1};
    const fx_part stacked[] = {{"qkv.weight", 4, 2}, {"q.weight", 0, -1}, {"qkv.weight", 0, 2}};
    const fx_part twice[] = {{"q.bias", 0, -1}, {"q.bias", 0, -1}};
    FX_TRY(fx_store_linear(s, c, &m->q, 4, 3, 1, &q));
    FX_TRY(fx_store_vector(s, c, &m->bias, 4, 1, &bias));
    FX_TRY(fx_store_linear(s, c, &m->stacked, 8, 3, 3, stacked));
    FX_TRY(fx_store_vector(s, c, &m->twice, 8, 2, twice));
    FX_TRY(fx_store_conv(s, c, &m->conv, 2, 3, 2, 2, "conv.weight"));
    FX_TRY(fx_store_linear(s, c, &m->point, 2, 3, 1, &point));
    FX_TRY(fx_store_table(s, c, &m->table, -1, 2, "table", false));
    return fx_store_table(s, c, &m->table_f32, 5, 2, "table", true);
}

static void check_model(const model *m, fx_dtype d)
{
    const size_t row = 3 * fx_dtype_size(d);
    const char *s = m->stacked.packed;
    T_CHECK(counts_from(m->q.packed, d, 0, 12) && ((const char *)m->q.packed)[4 * row] == 0x5a,
            "linear, packed");
    T_CHECK(counts_from(s, d, 12, 6) && counts_from(s + 2 * row, d, 0, 12) &&
                counts_from(s + 6 * row, d, 0, 6),
            "stacked parts");
    T_CHECK(counts_from(m->conv.packed, d, 0, 24) && m->conv.kh == 2 && m->conv.kind == FX_WEIGHT_CONV,
            "conv");
    T_CHECK(counts_from(m->point.packed, d, 0, 6) && m->point.kind == FX_WEIGHT_LINEAR,
            "[2,3,1,1] as a matrix");
    T_CHECK(counts_from(m->bias.data, FX_F32, 0, 4) && m->bias.dtype == FX_F32, "vector is f32");
    T_CHECK(counts_from(m->twice.data, FX_F32, 0, 4) && counts_from((char *)m->twice.data + 16, FX_F32, 0, 4),
            "stacked vector");
    T_CHECK(m->table.shape[0] == 5 && m->table.dtype == d && counts_from(m->table.data, d, 0, 10), "table");
    T_CHECK(m->table_f32.dtype == FX_F32 && counts_from(m->table_f32.data, FX_F32, 0, 10), "table in f32");
    T_CHECK((uintptr_t)m->conv.packed % FX_ARENA_ALIGN == 0 && (uintptr_t)m->twice.data % FX_ARENA_ALIGN == 0,
            "aligned");
}

static size_t last_done, last_total;
static void keep_progress(void *ctx, size_t done, size_t total)
{
    (void)ctx;
    T_CHECK(done > last_done && done <= total, "progress %zu of %zu after %zu", done, total, last_done);
    last_done = done;
    last_total = total;
}

static void t_alone(fx_dtype dtype, int threads)
{
    fx_backend be = fake(dtype, threads);
    fx_checkpoint *c;
    fx_store *s;
    model m;
    fx_weight late;
    const fx_part q = {"q.weight", 0, -1};
    last_done = 0;
    T_OK(fx_checkpoint_open(scratch, "", &c));
    T_OK(fx_store_open(&be, NULL, &s));
    T_OK(declare(s, c, &m));
    T_CHECK(!m.q.packed && m.q.n == 4 && m.q.dtype == dtype && m.bias.shape[0] == 4 && !m.bias.data,
            "declared, not loaded");
    T_CHECK(fx_store_bytes(s) == 8 * 256, "%zu bytes", fx_store_bytes(s));
    T_OK(fx_store_load(s, NULL, keep_progress, NULL));
    check_model(&m, dtype);
    T_CHECK(last_done == last_total && last_total > 0, "progress ends at %zu of %zu", last_done, last_total);
    T_CHECK(fx_store_bytes_read(s) == 24 + 16 + (24 + 24 + 24) + 32 + 48 + 24 + 20 + 20, "%zu bytes read",
            fx_store_bytes_read(s));
    T_REFUSED(fx_store_linear(s, c, &late, 4, 3, 1, &q), FX_ESHAPE, "after the load");
    T_REFUSED(fx_store_load(s, NULL, NULL, NULL), FX_ESHAPE, "twice");
    fx_store_close(&s);
    fx_checkpoint_close(&c);
}

static void t_refused(void)
{
    fx_backend be = fake(FX_F32, 1);
    fx_checkpoint *c;
    fx_store *s;
    fx_weight w;
    fx_tensor t;
    const fx_part q = {"q.weight", 0, -1}, far = {"qkv.weight", 4, 3}, none = {"k.weight", 0, -1};
    const fx_part gap[] = {{"qkv.weight", 0, 2}, {"q.weight", 0, 4}};
    T_OK(fx_checkpoint_open(scratch, "", &c));
    T_OK(fx_store_open(&be, NULL, &s));
    T_REFUSED(fx_store_linear(s, c, &w, 4, 5, 1, &q), FX_EFORMAT, "q.weight", "[4,5]", "[4,3]");
    T_REFUSED(fx_store_linear(s, c, &w, 5, 3, 1, &q), FX_EFORMAT, "q.weight", "[5,3]", "[4,3]");
    T_REFUSED(fx_store_linear(s, c, &w, 3, 3, 1, &far), FX_EFORMAT, "qkv.weight", "rows 4 to 7", "6 rows");
    T_REFUSED(fx_store_linear(s, c, &w, 4, 3, 1, &none), FX_EFORMAT, "k.weight", "missing");
    T_REFUSED(fx_store_linear(s, c, &w, 7, 3, 2, gap), FX_ESHAPE, "do not add up to 7");
    T_REFUSED(fx_store_conv(s, c, &w, 2, 3, 3, 3, "conv.weight"), FX_EFORMAT, "conv.weight", "[2,3,3,3]",
              "[2,3,2,2]");
    T_REFUSED(fx_store_table(s, c, &t, -1, 3, "table", false), FX_EFORMAT, "table", "[?,3]", "[5,2]");
    T_REFUSED(fx_store_vector(s, c, &t, 0, 1, &q), FX_EFORMAT, "q.weight", "at least 1");
    T_CHECK(fx_store_bytes(s) == 0, "what is refused takes no place");
    T_OK(fx_store_load(s, NULL, NULL, NULL)); /* nothing to do */
    fx_store_close(&s);
    fx_checkpoint_close(&c);
}

/* A model larger than memory is refused with both numbers, before anything is taken. */
static void t_too_large(void)
{
    fx_backend be = fake(FX_BF16, 1);
    fx_checkpoint *c;
    fx_store *s;
    fx_weight w;
    const fx_part part = {"huge.weight", 0, -1};
    T_OK(fx_checkpoint_synthetic("transformer", 1, &c));
    T_OK(fx_store_open(&be, NULL, &s));
    T_OK(fx_store_linear(s, c, &w, 1 << 22, 1 << 23, 1, &part));
    T_REFUSED(fx_store_load(s, NULL, NULL, NULL), FX_ENOMEM, "weights need", "GiB", "available");
    T_CHECK(!w.packed, "not loaded");
    fx_store_close(&s);
    fx_checkpoint_close(&c);
}

/* A failing read in a worker thread keeps its message. */
static void t_read_error(void)
{
    fx_backend be = fake(FX_F32, 4);
    fx_checkpoint *c;
    fx_store *s;
    model m;
    T_OK(fx_checkpoint_open(scratch, "", &c));
    T_OK(fx_store_open(&be, NULL, &s));
    T_OK(declare(s, c, &m));
    struct stat info = {0};
    stat(in_scratch("model.safetensors"), &info);
    T_CHECK(truncate(in_scratch("model.safetensors"), info.st_size - 100) == 0, "truncate");
    T_REFUSED(fx_store_load(s, NULL, NULL, NULL), FX_EREAD, "model.safetensors", "ends at byte");
    T_CHECK(!m.q.packed && !m.bias.data, "nothing is published");
    fx_store_close(&s);
    fx_checkpoint_close(&c);
    put_model();
}

/* ---- several ranks of one node ---- */

enum { RANKS = 3 };
static pthread_barrier_t barrier;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fx_status votes[RANKS];
static void *shared_block;
static int allocations;

typedef struct rank_context {
    int rank;
} rank_context;

static fx_status vote(void *ctx, fx_status mine)
{
    fx_status worst = FX_OK;
    votes[((rank_context *)ctx)->rank] = mine;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < RANKS; i++)
        if (votes[i] > worst) worst = votes[i];
    pthread_barrier_wait(&barrier);
    return worst;
}

static fx_status share_alloc(void *ctx, size_t bytes, void **out)
{
    pthread_mutex_lock(&lock);
    if (!shared_block) {
        shared_block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        allocations++;
    }
    pthread_mutex_unlock(&lock);
    *out = shared_block;
    return vote(ctx, FX_OK);
}

static void share_release(void *ctx, void *base, size_t bytes)
{
    pthread_mutex_lock(&lock);
    if (shared_block == base && ((rank_context *)ctx)->rank == 0) munmap(base, bytes);
    pthread_mutex_unlock(&lock);
}

typedef struct rank_run {
    rank_context context;
    pthread_t thread;
    fx_backend be;
    fx_checkpoint *c;
    fx_store *s;
    model m;
    fx_status status;
} rank_run;

static void *run_rank(void *arg)
{
    rank_run *r = arg;
    const fx_share share = {r->context.rank, RANKS, share_alloc, share_release, vote, &r->context};
    fx_status st = fx_checkpoint_open(scratch, "", &r->c);
    if (st == FX_OK) st = fx_store_open(&r->be, &share, &r->s);
    if (st == FX_OK) st = declare(r->s, r->c, &r->m);
    r->status = st == FX_OK ? fx_store_load(r->s, NULL, NULL, NULL) : st;
    return NULL;
}

static void run_node(rank_run runs[RANKS])
{
    memset(runs, 0, RANKS * sizeof *runs);
    packs = 0;
    shared_block = NULL;
    allocations = 0;
    pthread_barrier_init(&barrier, NULL, RANKS);
    for (int i = 0; i < RANKS; i++) {
        runs[i].context.rank = i;
        runs[i].be = fake(FX_BF16, 1);
        pthread_create(&runs[i].thread, NULL, run_rank, &runs[i]);
    }
    for (int i = 0; i < RANKS; i++) pthread_join(runs[i].thread, NULL);
    pthread_barrier_destroy(&barrier);
}

static void close_node(rank_run runs[RANKS])
{
    for (int i = RANKS - 1; i >= 0; i--) {
        fx_store_close(&runs[i].s);
        fx_checkpoint_close(&runs[i].c);
    }
}

static void t_node(void)
{
    rank_run runs[RANKS];
    size_t read = 0;
    run_node(runs);
    for (int i = 0; i < RANKS; i++) {
        T_CHECK(runs[i].status == FX_OK, "rank %d: %s", i, fx_status_name(runs[i].status));
        if (runs[i].status == FX_OK) check_model(&runs[i].m, FX_BF16);
        T_CHECK(runs[i].m.q.packed == runs[0].m.q.packed, "one block for all");
        T_CHECK(fx_store_bytes_read(runs[i].s) > 0, "rank %d reads nothing", i);
        read += fx_store_bytes_read(runs[i].s);
    }
    T_CHECK(packs == 4 && allocations == 1, "%d packs of 4 weights, %d blocks", (int)packs, allocations);
    T_CHECK(read == 256, "%zu bytes read by the node: each tensor once", read);
    close_node(runs);
}

static void t_node_failure(void)
{
    rank_run runs[RANKS];
    fail_pack_of = 8; /* one weight, so one rank */
    run_node(runs);
    for (int i = 0; i < RANKS; i++) {
        T_CHECK(runs[i].status == FX_EDEVICE, "rank %d: %s", i, fx_status_name(runs[i].status));
        T_CHECK(!runs[i].m.q.packed, "published after a failure");
    }
    close_node(runs);
    fail_pack_of = 0;
}

/* ---- synthetic weights ---- */

static void t_synthetic(void)
{
    enum { N = 3000, K = 1024 };
    fx_backend one = fake(FX_BF16, 1), four = fake(FX_BF16, 4);
    fx_checkpoint *c;
    fx_store *a, *b;
    fx_weight x, y, half;
    const fx_part all = {"w.weight", 0, -1}, rows[] = {{"w.weight", 1000, 500}, {"w.weight", 0, 100}};
    T_OK(fx_checkpoint_synthetic("transformer", 1, &c));
    T_OK(fx_store_open(&one, NULL, &a));
    T_OK(fx_store_open(&four, NULL, &b));
    T_OK(fx_store_linear(a, c, &x, N, K, 1, &all));
    T_OK(fx_store_linear(b, c, &y, N, K, 1, &all));
    T_OK(fx_store_linear(b, c, &half, 600, K, 2, rows));
    T_OK(fx_store_load(a, NULL, NULL, NULL));
    T_OK(fx_store_load(b, NULL, NULL, NULL));
    T_CHECK(memcmp(x.packed, y.packed, (size_t)N * K * 2) == 0, "the thread count shows");
    T_CHECK(memcmp(half.packed, (const char *)x.packed + 1000 * K * 2, 500 * K * 2) == 0 &&
                memcmp((const char *)half.packed + 500 * K * 2, x.packed, 100 * K * 2) == 0,
            "a row range is that part of the tensor");
    T_CHECK(fx_store_bytes_read(a) == 0, "no file was read");
    fx_store_close(&a);
    fx_store_close(&b);
    fx_checkpoint_close(&c);
}

int main(void)
{
    if (!scratch_open()) return 1;
    put_model();
    t_alone(FX_BF16, 1);
    t_alone(FX_F32, 2);
    t_alone(FX_F64, 1);
    t_refused();
    t_too_large();
    t_read_error();
    t_node();
    t_node_failure();
    t_synthetic();
    fx_stop_request(15);
    fx_backend be = fake(FX_F32, 1);
    fx_checkpoint *c;
    fx_store *s;
    model m;
    T_OK(fx_checkpoint_open(scratch, "", &c));
    T_OK(fx_store_open(&be, NULL, &s));
    T_OK(declare(s, c, &m));
    T_REFUSED(fx_store_load(s, NULL, NULL, NULL), FX_ESIGNAL, "signal 15");
    fx_store_close(&s);
    fx_checkpoint_close(&c);
    scratch_close();
    return test_end("t_store");
}
