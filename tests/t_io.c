/* runtime/io apart from checkpoints: JSON getters, the weight generator and .npy. Every broken file is made
 * here and its message is checked for the words a user needs. */
#include "tests/test.h"

#include <math.h>

#include "runtime/io/checkpoint.h"
#include "runtime/io/json.h"
#include "runtime/io/npy.h"
#include "runtime/io/synthetic.h"
#include "tests/scratch.h"

/* ---- JSON ---- */

static void t_json_files(void)
{
    json_t *root = NULL;
    const char *path = in_scratch("a.json");
    T_REFUSED(fx_json_load(path, 0, &root), FX_EREAD, path, "No such file");
    put_text(path, "{\"a\": 1,\n \"a\": 2}");
    T_REFUSED(fx_json_load(path, 0, &root), FX_EFORMAT, path, "not valid JSON", "line 2", "uplicate");
    put_text(path, "{\"a\": ");
    T_REFUSED(fx_json_load(path, 0, &root), FX_EFORMAT, path, "not valid JSON");
    put_text(path, "{\"a\": \"\xff\"}");
    T_REFUSED(fx_json_load(path, 0, &root), FX_EFORMAT, path, "decode byte 0xff");
    put_text(path, "{\"a\": 1}");
    T_REFUSED(fx_json_load(path, 4, &root), FX_EFORMAT, path, "8 bytes", "too large");
    put_text(path, "version https://git-lfs.github.com/spec/v1\n");
    T_REFUSED(fx_json_load(path, 0, &root), FX_EFORMAT, "43-byte git-lfs pointer", "git lfs pull");
    T_REFUSED(fx_json_load(scratch, 0, &root), FX_EREAD, "a folder");
    mkfifo(in_scratch("fifo"), 0600);
    T_REFUSED(fx_json_load(in_scratch("fifo"), 0, &root), FX_EREAD, "pipe");
}

/* As deep as is allowed, with brackets in strings that do not count, and one more. */
static void t_json_depth(void)
{
    char text[2 * FX_JSON_DEPTH + 32] = "";
    for (int more = 0; more < 2; more++) {
        const int depth = FX_JSON_DEPTH + more;
        memset(text, '[', (size_t)depth);
        const int n = snprintf(text + depth, sizeof text - (size_t)depth, "\"[{\\\"[\"");
        memset(text + depth + n, ']', (size_t)depth);
        json_error_t error;
        json_t *root = fx_json_parse(text, (size_t)(2 * depth + n), &error);
        T_CHECK((root != NULL) == (more == 0), "%d brackets: %s", depth, root ? "parsed" : error.text);
        json_decref(root);
    }
}

static void t_json_numbers(const fx_config *c)
{
    const int64_t eight = 8;
    const double half = 0.5;
    int64_t i = 0, list[4];
    int n = 0;
    double d = 0;
    T_CHECK(fx_config_int(c, "layers", 1, 100, NULL, &i) == FX_OK && i == 19, "%lld", (long long)i);
    T_CHECK(fx_config_int(c, "four", 1, 100, NULL, &i) == FX_OK && i == 4, "4.0 is an integer");
    T_CHECK(fx_config_int(c, "absent", 1, 100, &eight, &i) == FX_OK && i == 8, "fallback");
    T_CHECK(fx_config_int(c, "nothing", 1, 100, &eight, &i) == FX_OK && i == 8, "null is absent");
    T_REFUSED(fx_config_int(c, "layers", 20, 30, NULL, &i), FX_EFORMAT, "config.json", "\"layers\"",
              "from 20 to 30", "19");
    T_REFUSED(fx_config_int(c, "shift", 0, 30, NULL, &i), FX_EFORMAT, "\"shift\"", "an integer", "1.15");
    T_REFUSED(fx_config_int(c, "absent", 0, 30, NULL, &i), FX_EFORMAT, "\"absent\"", "found nothing");
    T_REFUSED(fx_config_int(c, "act", 0, 30, &eight, &i), FX_EFORMAT, "\"act\"", "found \"gelu\"");
    T_CHECK(fx_config_real(c, "shift", 0, 2, NULL, &d) == FX_OK && d == 1.15, "%g", d);
    T_CHECK(fx_config_real(c, "layers", 0, 20, NULL, &d) == FX_OK && d == 19, "an integer is a number");
    T_CHECK(fx_config_real(c, "absent", 0, 2, &half, &d) == FX_OK && d == 0.5, "fallback");
    T_CHECK(fx_config_real(c, "layers", 19, 20, NULL, &d) == FX_OK &&
                fx_config_real(c, "layers", 18, 19, NULL, &d) == FX_OK &&
                fx_config_int(c, "layers", 19, 20, NULL, &i) == FX_OK &&
                fx_config_int(c, "layers", 18, 19, NULL, &i) == FX_OK,
            "both ends are allowed");
    T_REFUSED(fx_config_real(c, "shift", 0, 1, NULL, &d), FX_EFORMAT, "from 0 to 1", "1.15");
    T_CHECK(fx_config_ints(c, "axes", 4, 2, 64, &n, list) == FX_OK && n == 3 && list[2] == 56, "list");
    T_CHECK(fx_config_ints(c, "one", 4, 5, 5, &n, list) == FX_OK && n == 1 && list[0] == 5, "a list of one");
    static const char *const odd_one[] = {"first", "second", "third"}; /* 60 there, 40 elsewhere */
    for (int k = 0; k < 3; k++) {
        for (int q = 0; q < 4; q++) list[q] = 40;
        T_REFUSED(fx_config_ints(c, odd_one[k], 4, 0, 50, &n, list), FX_EFORMAT, odd_one[k], "from 0 to 50");
    }
    static const char *const small_one[] = {"first20", "second20", "third20"};
    for (int k = 0; k < 3; k++) {
        for (int q = 0; q < 4; q++) list[q] = 40;
        T_REFUSED(fx_config_ints(c, small_one[k], 4, 30, 50, &n, list), FX_EFORMAT, small_one[k],
                  "from 30 to 50");
    }
    T_REFUSED(fx_config_ints(c, "axes", 2, 2, 64, &n, list), FX_EFORMAT, "1 to 2 integers", "[16,56,56]");
    T_REFUSED(fx_config_ints(c, "axes", 4, 2, 20, &n, list), FX_EFORMAT, "from 2 to 20", "[16,56,56]");
    T_REFUSED(fx_config_ints(c, "layers", 4, 2, 20, &n, list), FX_EFORMAT, "a list", "19");
    T_REFUSED(fx_config_ints(c, "empty", 4, 2, 20, &n, list), FX_EFORMAT, "a list", "[]");
}

static void t_json_others(const fx_config *c)
{
    const bool yes = true;
    bool b = false;
    char s[8];
    T_CHECK(fx_config_bool(c, "guidance", NULL, &b) == FX_OK && b, "bool");
    T_CHECK(fx_config_bool(c, "absent", &yes, &b) == FX_OK && b, "fallback");
    T_REFUSED(fx_config_bool(c, "layers", &yes, &b), FX_EFORMAT, "\"layers\"", "true or false", "19");
    T_CHECK(fx_config_string(c, "act", NULL, s, sizeof s) == FX_OK && strcmp(s, "gelu") == 0, "string");
    T_CHECK(fx_config_string(c, "absent", "silu", s, sizeof s) == FX_OK && strcmp(s, "silu") == 0,
            "fallback");
    T_REFUSED(fx_config_string(c, "act", NULL, s, 4), FX_EFORMAT, "shorter", "gelu");
    T_REFUSED(fx_config_string(c, "layers", "x", s, sizeof s), FX_EFORMAT, "a string", "19");
    T_CHECK(fx_config_has(c, "act") && !fx_config_has(c, "nothing") && !fx_config_has(c, "absent"), "has");
    T_OK(fx_config_only_int(c, "layers", 19));
    T_OK(fx_config_only_int(c, "absent", 19));
    T_OK(fx_config_only_bool(c, "guidance", true));
    T_OK(fx_config_only_string(c, "act", "gelu"));
    T_REFUSED(fx_config_only_int(c, "layers", 1), FX_EFORMAT, "config.json", "\"layers\" = 19",
              "not implemented", "only 1");
    T_REFUSED(fx_config_only_bool(c, "guidance", false), FX_EFORMAT, "\"guidance\" = true", "only false");
    T_REFUSED(fx_config_only_string(c, "act", "relu"), FX_EFORMAT, "\"act\" = \"gelu\"", "only \"relu\"");
}

static void t_config(void)
{
    fx_config c;
    mkdir(in_scratch("part"), 0777);
    T_REFUSED(fx_config_open(scratch, "part", "config.json", &c), FX_EREAD, "part/config.json",
              "No such file");
    put_text(in_scratch("part/config.json"), "[1]");
    T_REFUSED(fx_config_open(scratch, "part", "config.json", &c), FX_EFORMAT, "part/config.json",
              "JSON object");
    put_text(in_scratch("part/config.json"),
             "{\"layers\":19,\"four\":4.0,\"shift\":1.15,\"guidance\":true,\"act\":\"gelu\","
             "\"axes\":[16,56,56],\"empty\":[],\"nothing\":null,\"one\":[5],"
             "\"first\":[60,40,40],\"second\":[40,60,40],\"third\":[40,40,60],"
             "\"first20\":[20,40,40],\"second20\":[40,20,40],\"third20\":[40,40,20]}");
    T_OK(fx_config_open(in_scratch("part"), NULL, "config.json", &c));
    fx_config_close(&c);
    T_OK(fx_config_open(scratch, "part", "config.json", &c));
    t_json_numbers(&c);
    t_json_others(&c);
    fx_config_close(&c);
    fx_config_close(&c);
}

/* ---- synthetic weights ---- */

static void t_generator(void)
{
    /* first values of transformer/x_embedder.weight, seed 1, as numpy computes them (tests/goldens/README.md)
     */
    const float want[] = {-0.558869958f, -0.0968296528f, 0.723681808f, -0.703580379f};
    float a[100], b[100], most = 0;
    double sum = 0;
    const uint64_t key = fx_synthetic_key("transformer", "x_embedder.weight", 1);
    fx_synthetic_fill(key, 0, 100, 1, 0, a);
    T_CHECK(memcmp(a, want, sizeof want) == 0, "%.9g %.9g", (double)a[0], (double)a[1]);
    fx_synthetic_plain(key, 0, 100, 1, -0.0f, b);
    T_CHECK(!memcmp(a, b, 100 * sizeof *a), "the plain loop gives other values");
    fx_synthetic_fill(key, 37, 63, 1, 0, b);
    T_CHECK(memcmp(a + 37, b, 63 * sizeof *b) == 0, "a range is a part of the whole");
    for (int i = 0; i < 100; i++) fx_synthetic_fill(key, (uint64_t)i, 1, 1, 0, &b[i]);
    T_CHECK(memcmp(a, b, sizeof a) == 0, "one at a time");
    fx_synthetic_fill(key, 0, 100, 0.25f, 1, b);
    for (int i = 0; i < 100; i++) T_CHECK(b[i] == a[i] * 0.25f + 1, "amp and mean at %d", i);
    T_CHECK(key != fx_synthetic_key("transformer", "x_embedder.weight", 2) &&
                key != fx_synthetic_key("vae", "x_embedder.weight", 1),
            "streams differ");
    for (int i = 0; i < 100000; i += 100) {
        fx_synthetic_fill(key, (uint64_t)i, 100, 1, 0, a);
        for (int j = 0; j < 100; j++) {
            sum += (double)a[j];
            most = fmaxf(most, fabsf(a[j]));
        }
    }
    T_CHECK(fabs(sum) < 1000 && most <= 1 && most > 0.999f, "sum %g of 1e5, largest %g", sum, (double)most);
}

static void t_scale(void)
{
    const int64_t linear[] = {100, 300}, vector[] = {64}, conv[] = {8, 4, 3, 3};
    float amp, mean;
    fx_synthetic_scale("transformer_blocks.0.ff.net.2.weight", 2, linear, &amp, &mean);
    T_CHECK(fabsf(amp - 0.1f) < 1e-6f && mean == 0, "sqrt(3/300): %g", (double)amp);
    fx_synthetic_scale("decoder.up_blocks.0.resnets.0.conv1.weight", 4, conv, &amp, &mean);
    T_CHECK(fabsf(amp - sqrtf(3.0f / 36)) < 1e-6f, "conv fan-in: %g", (double)amp);
    fx_synthetic_scale("transformer_blocks.0.attn.norm_q.weight", 1, vector, &amp, &mean);
    T_CHECK(mean == 1 && amp == 0.1f, "norm weights are about 1");
    fx_synthetic_scale("transformer_blocks.0.norm1.linear.bias", 1, vector, &amp, &mean);
    T_CHECK(mean == 0 && amp == 0.02f, "a bias is small");
    fx_synthetic_scale("transformer_blocks.0.norm1.linear.weight", 2, linear, &amp, &mean);
    T_CHECK(amp < 0.05f, "gates are small: %g", (double)amp);
}

static void t_synthetic_checkpoint(void)
{
    enum { ROWS = 230, ALL = ROWS * 300 }; /* more than two slabs */
    const int64_t shape[] = {ROWS, 300}, open_shape[] = {-1, 300};
    static float f[ALL], part[ALL];
    static double d[ALL];
    static uint16_t h[ALL];
    fx_checkpoint *c;
    fx_entry e;
    uint64_t h1, h2;
    T_OK(fx_checkpoint_synthetic("vae", 5, &c));
    T_CHECK(fx_checkpoint_is_synthetic(c) && fx_checkpoint_has(c, "anything") &&
                !fx_checkpoint_name(c, 0, &e),
            "synthetic");
    T_REFUSED(fx_checkpoint_find(c, "w.weight", 2, open_shape, &e), FX_EINVAL, "w.weight", "[?,300]");
    T_OK(fx_checkpoint_find(c, "w.weight", 2, shape, &e));
    T_CHECK(e.ndim == 2 && e.shape[0] == ROWS && e.shape[1] == 300 && !e.shape[2] && !e.shape[4] &&
                !e.offset && e.file == -1,
            "the entry");
    T_OK(fx_checkpoint_read(c, &e, 0, ROWS, FX_F32, f));
    T_OK(fx_checkpoint_read(c, &e, 0, ROWS, FX_F64, d));
    T_OK(fx_checkpoint_read(c, &e, 0, ROWS, FX_BF16, h));
    T_OK(fx_checkpoint_read(c, &e, 200, 30, FX_F32, part));
    T_CHECK(memcmp(part, f + 200 * 300, 30 * 300 * sizeof *f) == 0, "rows of the last slab");
    T_OK(fx_checkpoint_read(c, &e, 13, 9, FX_F32, part));
    int same = 0;
    for (int i = 0; i < ALL; i++) same += (double)f[i] == d[i] && fx_bf16_to_f32(h[i]) == f[i];
    T_CHECK(same == ALL, "all backends see the same weights: %d", same);
    T_CHECK(memcmp(part, f + 13 * 300, 9 * 300 * sizeof *f) == 0, "row range");
    T_OK(fx_checkpoint_hash(c, &h1));
    fx_checkpoint_close(&c);
    T_OK(fx_checkpoint_synthetic("vae", 6, &c));
    T_OK(fx_checkpoint_hash(c, &h2));
    T_CHECK(h1 != h2, "hash knows the seed");
    fx_checkpoint_close(&c);
}

/* ---- npy ---- */

static void t_npy_round(fx_dtype dtype, fx_dtype back)
{
    const double numbers[] = {1, 2, 3, 4, 5, 250};
    unsigned char data[48] = {0};
    fx_tensor got = fx_none();
    if (dtype == FX_U8)
        for (int i = 0; i < 6; i++) data[i] = (unsigned char)numbers[i];
    else if (dtype == FX_I32)
        for (int i = 0; i < 6; i++) memcpy(data + 4 * i, &(int32_t){-(int32_t)numbers[i]}, 4);
    else
        fx_convert(data, dtype, numbers, FX_F64, 6);
    T_OK(fx_npy_write(in_scratch("a.npy"), fx_view2(data, dtype, 2, 3)));
    T_OK(fx_npy_read(in_scratch("a.npy"), &got));
    T_CHECK(got.dtype == back && got.ndim == 2 && got.shape[0] == 2 && got.shape[1] == 3, "%s",
            fx_dtype_name(dtype));
    if (dtype == FX_BF16)
        T_CHECK(((float *)got.data)[5] == 250, "bf16 as f32");
    else
        T_CHECK(memcmp(got.data, data, fx_bytes(got)) == 0, "%s data", fx_dtype_name(dtype));
    free(got.data);
}

static void put_npy(const char *dict, const void *data, size_t n)
{
    unsigned char bytes[400] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
    const size_t length = strlen(dict) + 1;
    bytes[8] = (unsigned char)length, bytes[9] = (unsigned char)(length >> 8);
    memcpy(bytes + 10, dict, length - 1);
    bytes[9 + length] = '\n';
    memcpy(bytes + 10 + length, data, n);
    put_file(in_scratch("b.npy"), bytes, 10 + length + n);
}

/* bf16 is widened piece by piece: the ends of pieces. */
static void t_npy_pieces(void)
{
    for (int64_t n = 1022; n <= 2050; n += n == 1026 ? 1021 : 1) {
        uint16_t data[2050];
        fx_tensor got = fx_none();
        int bad = 0;
        for (int64_t i = 0; i < n; i++) data[i] = fx_f32_to_bf16((float)(i % 251));
        T_OK(fx_npy_write(in_scratch("p.npy"), fx_view1(data, FX_BF16, n)));
        T_OK(fx_npy_read(in_scratch("p.npy"), &got));
        for (int64_t i = 0; i < n && got.data; i++) bad += ((float *)got.data)[i] != (float)(i % 251);
        T_CHECK(got.data && got.shape[0] == n && !bad, "%lld values, %d wrong", (long long)n, bad);
        free(got.data);
    }
}

static void t_npy(void)
{
    const int64_t wide[] = {1, -7, 1LL << 31};
    fx_tensor t;
    t_npy_pieces();
    t_npy_round(FX_F64, FX_F64);
    t_npy_round(FX_F32, FX_F32);
    t_npy_round(FX_F16, FX_F16);
    t_npy_round(FX_BF16, FX_F32);
    t_npy_round(FX_I32, FX_I32);
    t_npy_round(FX_U8, FX_U8);
    const char *path = in_scratch("b.npy");
    put_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", wide, 16);
    T_OK(fx_npy_read(path, &t));
    T_CHECK(t.dtype == FX_I32 && t.shape[0] == 2 && ((int32_t *)t.data)[1] == -7, "i8 becomes i32");
    free(t.data);
    put_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }", wide, 24);
    T_REFUSED(fx_npy_read(path, &t), FX_EFORMAT, path, "element 2", "32 bits");
    put_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", wide, 4);
    T_OK(fx_npy_read(path, &t));
    T_CHECK(t.ndim == 1 && t.shape[0] == 1, "a scalar");
    free(t.data);
    char wide_header[321];
    snprintf(wide_header, sizeof wide_header, "%-320s",
             "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }");
    put_npy(wide_header, wide, 8);
    T_OK(fx_npy_read(path, &t));
    T_CHECK(t.ndim == 1 && t.shape[0] == 2, "a header of more than 255 bytes");
    free(t.data);
    put_npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", wide, 8);
    T_REFUSED(fx_npy_read(path, &t), FX_EFORMAT, path, "C order");
    put_npy("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", wide, 8);
    T_REFUSED(fx_npy_read(path, &t), FX_EFORMAT, path, "dtype");
    put_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", wide, 8);
    T_REFUSED(fx_npy_read(path, &t), FX_EFORMAT, path, "12 bytes", "found 8");
    put_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3037000500,3037000500), }", wide, 8);
    T_REFUSED(fx_npy_read(path, &t), FX_EFORMAT, path, "shape");
    put_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,", wide, 8);
    T_REFUSED(fx_npy_read(path, &t), FX_EFORMAT, path, "shape");
    put_file(path, "\x93NUMPY\1\0\x20\0{'descr'", 18); /* 32 bytes of header are promised */
    T_REFUSED(fx_npy_read(path, &t), FX_EFORMAT, path, "header is cut");
    put_file(path, "\x93NUMPY\1\0\0\0", 10);
    T_REFUSED(fx_npy_read(path, &t), FX_EFORMAT, path, "header is cut");
    put_text(path, "not numpy");
    T_REFUSED(fx_npy_read(path, &t), FX_EFORMAT, path, ".npy");
    T_REFUSED(fx_npy_write(in_scratch("none/a.npy"), fx_view1((void *)wide, FX_F64, 2)), FX_EWRITE,
              "none/a.npy", "No such file");
    T_REFUSED(fx_npy_write("/dev/full", fx_view1((void *)wide, FX_F64, 2)), FX_EWRITE, "/dev/full",
              "No space left");
}

int main(void)
{
    if (!scratch_open()) return 1;
    t_json_files();
    t_json_depth();
    t_config();
    t_generator();
    t_scale();
    t_synthetic_checkpoint();
    t_npy();
    scratch_close();
    return test_end("t_io");
}
