/* Checkpoints: good folders in every layout, and every way a file can be broken, each with the words its
 * message must carry. All files are made here. */
#include "tests/test.h"

#include <unistd.h>

#include "runtime/io/checkpoint.h"
#include "tests/scratch.h"

/* header length, header, data; `claimed` < 0: the true length. */
static void put_safetensors(const char *path, const char *header, const void *data, size_t n,
                            long long claimed)
{
    static unsigned char bytes[1 << 16];
    const size_t length = strlen(header);
    const unsigned long long stored = claimed < 0 ? length : (unsigned long long)claimed;
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(stored >> (8 * i));
    memcpy(bytes + 8, header, length);
    if (n) memcpy(bytes + 8 + length, data, n);
    put_file(path, bytes, 8 + length + n);
}

static fx_status open_close(const char *component)
{
    fx_checkpoint *c;
    const fx_status st = fx_checkpoint_open(scratch, component, &c);
    if (st != FX_OK) T_CHECK(!c, "a refused checkpoint is NULL");
    fx_checkpoint_close(&c);
    return st;
}

/* ---- good files ---- */

static const float values[6] = {1, -2, 3.5f, 0.0009765625f, -65504, 1e-3f};

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"w\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]},"
                           "\"e\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[24,24]},"
                           "\"q\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[24,26]},"
                           "\"h\":{\"dtype\":\"F16\",\"shape\":[3,1,1],\"data_offsets\":[26,32]},"
                           "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[32,38]}}  ";

static void put_good(const char *folder)
{
    char data[38] = {0};
    memcpy(data, values, 24);
    fx_convert(data + 26, FX_F16, values, FX_F32, 3);
    fx_convert(data + 32, FX_BF16, values, FX_F32, 3);
    mkdir(in_scratch("%s", folder), 0777);
    put_safetensors(in_scratch("%s/model.safetensors", folder), good, data, sizeof data, -1);
}

static void t_read(const fx_checkpoint *c)
{
    const int64_t shape[] = {3, 2}, any[] = {-1, 2}, vector[] = {3}, wide[] = {3, 1};
    fx_entry e;
    double d[6];
    float f[6];
    uint16_t h[6];
    T_OK(fx_checkpoint_find(c, "w", 2, shape, &e));
    T_OK(fx_checkpoint_read(c, &e, 0, 3, FX_F32, f));
    T_CHECK(memcmp(f, values, sizeof f) == 0, "f32 as it is");
    T_OK(fx_checkpoint_find(c, "w", 2, any, &e));
    T_CHECK(e.shape[0] == 3 && e.ndim == 2 && !e.shape[2] && !e.shape[4] && !e.key && e.amp == 0 &&
                e.mean == 0,
            "-1 is filled in, the rest is nothing");
    T_OK(fx_checkpoint_read(c, &e, 1, 2, FX_F64, d));
    for (int i = 0; i < 4; i++) T_CHECK(d[i] == (double)values[2 + i], "row range as f64: %g", d[i]);
    T_OK(fx_checkpoint_read(c, &e, 0, 3, FX_BF16, h));
    for (int i = 0; i < 6; i++) T_CHECK(h[i] == fx_f32_to_bf16(values[i]), "f32 to bf16");
    T_OK(fx_checkpoint_find(c, "h", 1, vector, &e)); /* [3,1,1] as [3] */
    T_CHECK(e.ndim == 1 && e.shape[0] == 3 && e.shape[1] == 0, "squeezed");
    T_OK(fx_checkpoint_read(c, &e, 0, 3, FX_F32, f));
    T_CHECK(memcmp(f, values, 12) == 0, "f16 to f32");
    T_OK(fx_checkpoint_find(c, "b", 2, wide, &e)); /* [3] as [3,1] */
    T_OK(fx_checkpoint_read(c, &e, 2, 1, FX_F32, f));
    T_CHECK(f[0] == 3.5f && e.ndim == 2, "bf16 to f32, last row");
    T_OK(fx_checkpoint_read(c, &e, 3, 0, FX_F32, f));
    T_REFUSED(fx_checkpoint_read(c, &e, 2, 2, FX_F32, f), FX_ESHAPE, "2+2", "3");
}

static void t_good(void)
{
    fx_checkpoint *c;
    fx_entry e;
    const int64_t wrong[] = {3, 3}, flat[] = {6}, two[] = {2}, big[] = {3, 2, 2};
    put_good("good");
    T_OK(fx_checkpoint_open(scratch, "good", &c));
    if (!c) return;
    t_read(c);
    T_CHECK(fx_checkpoint_has(c, "w") && !fx_checkpoint_has(c, "W") && !fx_checkpoint_has(c, "__metadata__"),
            "has");
    T_CHECK(fx_checkpoint_bytes(c) == 38, "%lld bytes", (long long)fx_checkpoint_bytes(c));
    T_CHECK(strcmp(fx_checkpoint_name(c, 0, &e), "w") == 0 && e.dtype == FX_F32 &&
                !fx_checkpoint_name(c, 5, &e),
            "names");
    T_CHECK(strcmp(fx_checkpoint_name(c, 2, &e), "q") == 0 && e.dtype == FX_DTYPES &&
                strcmp(e.tag, "F8_E4M3") == 0,
            "tag");
    T_REFUSED(fx_checkpoint_find(c, "w", 2, wrong, &e), FX_EFORMAT, "good/model.safetensors", "tensor w",
              "[3,3]", "[3,2]");
    T_REFUSED(fx_checkpoint_find(c, "w", 1, flat, &e), FX_EFORMAT, "[6]", "[3,2]");
    T_REFUSED(fx_checkpoint_find(c, "w", 3, big, &e), FX_EFORMAT, "[3,2,2]", "[3,2]");
    T_REFUSED(fx_checkpoint_find(c, "q", 1, two, &e), FX_EFORMAT, "tensor q", "F8_E4M3", "BF16",
              "not implemented");
    T_REFUSED(fx_checkpoint_find(c, "none", 1, two, &e), FX_EFORMAT, "tensor none", "missing", "good");
    T_CHECK(!fx_checkpoint_is_synthetic(c), "a file");
    fx_checkpoint_close(&c);
}

static uint64_t hash_of(const char *component)
{
    fx_checkpoint *c;
    uint64_t h = 0;
    T_OK(fx_checkpoint_open(scratch, component, &c));
    if (c) T_OK(fx_checkpoint_hash(c, &h));
    fx_checkpoint_close(&c);
    return h;
}

static void t_hash(void)
{
    put_good("hash");
    const uint64_t a = hash_of("good"), b = hash_of("hash");
    T_CHECK(a == b && a != 0, "equal files, other folder");
    FILE *f = fopen(in_scratch("hash/model.safetensors"), "r+b");
    fseek(f, -1, SEEK_END);
    fputc(0x11, f);
    fclose(f);
    T_CHECK(hash_of("hash") != a, "one byte of a tensor");
    /* of a large tensor 4 KiB in its middle count */
    enum { BYTES = 16384 };
    static char data[BYTES];
    uint64_t h[5];
    mkdir(in_scratch("large"), 0777);
    for (int i = 0; i < 5; i++) {
        static const int at[5] = {0, BYTES / 2 - 2048, BYTES / 2 + 2047, BYTES / 2 - 2049, BYTES / 2 + 2048};
        data[at[i]] = (char)(i != 0);
        put_safetensors(in_scratch("large/model.safetensors"),
                        "{\"w\":{\"dtype\":\"F32\",\"shape\":[4096],\"data_offsets\":[0,16384]}}", data,
                        BYTES, -1);
        h[i] = hash_of("large");
        data[at[i]] = 0;
    }
    T_CHECK(h[1] != h[0] && h[2] != h[0] && h[3] == h[0] && h[4] == h[0], "the middle of a large tensor");
}

/* ---- one broken file at a time ---- */

static void broken(const char *header, size_t data, long long claimed, const char *word1, const char *word2)
{
    static const char zeros[64];
    mkdir(in_scratch("broken"), 0777);
    put_safetensors(in_scratch("broken/model.safetensors"), header, zeros, data, claimed);
    T_REFUSED(open_close("broken"), FX_EFORMAT, "broken/model.safetensors", word1, word2);
}

#define ONE(dtype, shape, from, to)                                                                          \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}}"
#define TWO(from, to)                                                                                        \
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"                                       \
    "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" #from "," #to "]}}"

static void t_broken_sizes(void)
{
    broken(ONE("\"F32\"", "[2]", 0, 8), 7, -1, "download incomplete", "bytes");
    broken(ONE("\"F32\"", "[2]", 0, 8), 9, -1, "1 trailing bytes", "damaged");
    broken(ONE("\"F32\"", "[2]", 0, 8), 8, 1000, "1008", "download incomplete");
    broken(ONE("\"F32\"", "[2]", 0, 8), 8, (long long)strlen(ONE("\"F32\"", "[2]", 0, 8)) + 9,
           "its header alone takes", "download incomplete");
    broken(ONE("\"F32\"", "[2]", 0, 8), 8, 200000000, "not a safetensors file", "200000000");
    broken(ONE("\"F32\"", "[2]", 0, 8), 8, 0x7fffffffffffffffLL, "not a safetensors file", "header");
    broken("<html>gated</html>", 0, -1, "not a safetensors file", "header");
    broken(TWO(4, 12), 12, -1, "overlap", "a and b");
    broken(TWO(0, 8), 8, -1, "overlap", "a and b");
    broken(TWO(12, 20), 20, -1, "4 bytes before tensor b", "no tensor");
    broken(ONE("\"F32\"", "[2]", 4, 12), 12, -1, "4 bytes before tensor a", "no tensor");
    broken(ONE("\"F32\"", "[2]", 0, 12), 12, -1, "make 8 bytes", "span 12");
    broken(ONE("\"F32\"", "[2]", 8, 0), 8, -1, "tensor a", "data_offsets");
    broken(ONE("\"F32\"", "[2]", -8, 0), 8, -1, "tensor a", "data_offsets");
    broken(ONE("\"F4\"", "[3]", 0, 1), 1, -1, "tensor a", "F4");
}

static void t_broken_entries(void)
{
    broken(ONE("\"F33\"", "[2]", 0, 8), 8, -1, "unknown dtype", "F33");
    broken(ONE("7", "[2]", 0, 8), 8, -1, "unknown dtype", "tensor a");
    broken(ONE("\"F32\"", "[-2]", 0, 8), 8, -1, "tensor a", "shape");
    broken(ONE("\"F32\"", "[2.0]", 0, 8), 8, -1, "tensor a", "shape");
    broken(ONE("\"F32\"", "2", 0, 8), 8, -1, "tensor a", "shape");
    broken(ONE("\"F32\"", "[1,1,1,1,1,2]", 0, 8), 8, -1, "tensor a", "at most 5");
    broken(ONE("\"F32\"", "[4294967296,4294967296,4294967296]", 0, 8), 8, -1, "tensor a", "overflow");
    broken("{\"a\":[1]}", 8, -1, "tensor a", "not an object");
    broken("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, -1, "tensor a", "data_offsets");
    broken("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", 8, -1, "tensor a",
           "data_offsets");
    broken("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{}}", 8, -1, "JSON",
           "uplicate");
    broken("{\"a\":", 0, -1, "JSON", "header");
    broken("{\"a\":{}} x", 0, -1, "JSON", "header");
}

static void t_deep(void)
{
    static char deep[20000];
    memset(deep, '[', sizeof deep - 1);
    memcpy(deep, "{\"a\":", 5);
    broken(deep, 0, -1, "JSON", "depth");
}

static void t_not_safetensors(void)
{
    const char *path = in_scratch("broken/model.safetensors");
    char pointer[136];
    memset(pointer, 'x', sizeof pointer);
    memcpy(pointer, "version https://git-lfs.github.com/spec/v1\noid sha256:", 54);
    put_file(path, pointer, 135);
    T_REFUSED(open_close("broken"), FX_EFORMAT, path, "135-byte git-lfs pointer", "git lfs pull");
    put_file(path, "abc", 3);
    T_REFUSED(open_close("broken"), FX_EFORMAT, path, "3 bytes", "too short");
    put_file(path, "", 0);
    T_REFUSED(open_close("broken"), FX_EFORMAT, path, "0 bytes", "too short");
    remove(path);
    mkdir(path, 0777);
    T_REFUSED(open_close("broken"), FX_EREAD, path, "a folder");
    remove(path);
    T_REFUSED(open_close("broken"), FX_EREAD, "broken", "no *.safetensors");
    put_text(in_scratch("broken/diffusion_pytorch_model.bin"), "x");
    T_REFUSED(open_close("broken"), FX_EREAD, "no *.safetensors", "diffusion_pytorch_model.bin", "convert");
    T_REFUSED(open_close("nowhere"), FX_EREAD, "nowhere", "No such file");
}

static void t_cut_later(void)
{
    const int64_t shape[] = {3, 2};
    fx_checkpoint *c;
    fx_entry e;
    float f[6];
    put_good("cut");
    T_OK(fx_checkpoint_open(scratch, "cut", &c));
    T_OK(fx_checkpoint_find(c, "w", 2, shape, &e));
    T_CHECK(truncate(in_scratch("cut/model.safetensors"), 40) == 0, "truncate");
    T_REFUSED(fx_checkpoint_read(c, &e, 0, 3, FX_F32, f), FX_EREAD, "cut/model.safetensors", "ends at byte");
    fx_checkpoint_close(&c);
}

/* ---- folders of several files ---- */

static void put_named(const char *folder, const char *file, const char *tensor)
{
    char header[300];
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
             tensor);
    mkdir(in_scratch("%s", folder), 0777);
    put_safetensors(in_scratch("%s/%s", folder, file), header, values, 8, -1);
}

static void t_shards(void)
{
    fx_checkpoint *c;
    put_named("shards", "model-00001-of-00002.safetensors", "a");
    T_REFUSED(open_close("shards"), FX_EREAD, "1 of 2 shards", "model-00001-of-00002", "incomplete");
    put_named("shards", "model-00002-of-00002.safetensors", "b");
    T_OK(fx_checkpoint_open(scratch, "shards", &c));
    T_CHECK(c && fx_checkpoint_has(c, "a") && fx_checkpoint_has(c, "b") && fx_checkpoint_bytes(c) == 16,
            "both shards");
    fx_checkpoint_close(&c);
    put_named("shards", "model-00002-of-00002.safetensors", "a");
    T_REFUSED(open_close("shards"), FX_EFORMAT, "tensor a", "model-00001", "model-00002");
    put_named("number", "12345-of-00009.safetensors", "a");
    T_OK(open_close("number")); /* no number before a stem: the name of a whole file */
    put_named("short", "-00001-of-00002.safetensors", "a");
    T_REFUSED(open_close("short"), FX_EREAD, "1 of 2 shards");
    put_named("variant", "diffusion_pytorch_model.safetensors", "a");
    put_named("variant", "diffusion_pytorch_model.fp16.safetensors", "a");
    T_OK(open_close("variant")); /* the standard name wins over a variant of the same weights */
}

static void put_index(const char *map)
{
    char text[600];
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":16},\"weight_map\":%s}", map);
    put_text(in_scratch("index/diffusion_pytorch_model.safetensors.index.json"), text);
}

static void t_index(void)
{
    put_named("index", "one.safetensors", "a");
    put_named("index", "two.safetensors", "b");
    put_named("index", "other.safetensors", "a"); /* not in the index: not part of the model */
    put_index("{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}");
    T_OK(open_close("index"));
    put_index("{\"a\":\"one.safetensors\",\"b\":\"three.safetensors\"}");
    T_REFUSED(open_close("index"), FX_EREAD, "index.json", "three.safetensors", "not in the folder");
    put_index("{\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"}");
    T_REFUSED(open_close("index"), FX_EFORMAT, "index.json", "tensor c", "two.safetensors");
    put_index("{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}");
    T_REFUSED(open_close("index"), FX_EFORMAT, "index.json", "two.safetensors", "one.safetensors");
    static const char *const outside[] = {
        "/etc/passwd", "../one.safetensors", "..", "sub/one.safetensors", "", ".one"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        char map[100];
        snprintf(map, sizeof map, "{\"a\":\"%s\"}", outside[i]);
        put_index(map);
        T_REFUSED(open_close("index"), FX_EFORMAT, "index.json", "tensor a", "in this folder", outside[i]);
    }
    put_index("{\"a\":7}");
    T_REFUSED(open_close("index"), FX_EFORMAT, "tensor a", "not a string");
    put_index("[]");
    T_REFUSED(open_close("index"), FX_EFORMAT, "index.json", "weight_map");
    put_text(in_scratch("index/diffusion_pytorch_model.safetensors.index.json"),
             "version https://git-lfs.github.com/spec/v1\n");
    T_REFUSED(open_close("index"), FX_EFORMAT, "git-lfs pointer", "git lfs pull");
    put_text(in_scratch("index/diffusion_pytorch_model.safetensors.index.json"),
             "{\"weight_map\":{\"a\":\"one.safetensors\"}}");
    put_text(in_scratch("index/diffusion_pytorch_model.fp16.safetensors.index.json"), "{}");
    T_OK(open_close("index"));
    remove(in_scratch("index/diffusion_pytorch_model.safetensors.index.json"));
    put_text(in_scratch("index/x.safetensors.index.json"), "{}");
    T_REFUSED(open_close("index"), FX_EFORMAT, "2 *.safetensors.index.json", "keep one");
}

/* Random damage must end in a message or in a file that still holds together, never in a crash (run with
 * sanitizers). */
static void t_random_damage(void)
{
    static unsigned char whole[4096], bytes[4096];
    uint64_t state = 7;
    int refused = 0;
    put_good("noise");
    FILE *f = fopen(in_scratch("noise/model.safetensors"), "rb");
    const size_t n = f ? fread(whole, 1, sizeof whole, f) : 0;
    if (f) fclose(f);
    for (int i = 0; i < 1000; i++) {
        fx_checkpoint *c;
        memcpy(bytes, whole, n);
        for (int k = 0; k < 1 + i % 3; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            bytes[(state >> 33) % n] = (unsigned char)(state >> 20);
        }
        put_file(in_scratch("noise/model.safetensors"), bytes, n);
        refused += fx_checkpoint_open(scratch, "noise", &c) != FX_OK;
        fx_checkpoint_close(&c);
    }
    T_CHECK(refused > 300 && refused < 1000, "%d of 1000 refused", refused);
}

int main(void)
{
    if (!scratch_open()) return 1;
    t_good();
    t_random_damage();
    t_hash();
    t_broken_sizes();
    t_broken_entries();
    t_deep();
    t_not_safetensors();
    t_cut_later();
    t_shards();
    t_index();
    scratch_close();
    return test_end("t_checkpoint");
}
