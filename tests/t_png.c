/* PNG out and in: pixels and texts come back, equal input gives equal bytes, nothing is left behind or
 * replaced on any failure (existing file, folder, no space, read-only disk, no permission, killed half-way).
 */
#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <png.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/io/output.h"
#include "runtime/io/png.h"
#include "tests/png/strips.h"
#include "tests/scratch.h"

enum { W = 37, H = 23 };
static uint8_t pixels[W * H * 3];

static int entries(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d) closedir(d);
    return n;
}

static size_t slurp(const char *path, char *buf, size_t size)
{
    FILE *f = fopen(path, "rb");
    const size_t n = f ? fread(buf, 1, size, f) : 0;
    if (f) fclose(f);
    return n;
}

static const fx_png_text texts[] = {
    {"parameters", "a slice of pizza\nSteps: 28, Seed: 1"},
    {"fluxpar", "{\"prompt\":\"gr\xc3\xbc\xc3\x9f dich \xf0\x9f\x8d\x95\"}"},
    {"empty", ""},
};

static fx_status write_png(const char *path, bool overwrite)
{
    return fx_png_write(path, pixels, W, H, 3, texts, overwrite, 2);
}

/* ---- round trip ---- */

static char seen[4][200];
static int seen_count;
static void keep_text(void *ctx, const char *key, const char *value)
{
    (void)ctx;
    if (seen_count < 4) snprintf(seen[seen_count++], sizeof seen[0], "%s=%s", key, value);
}

static void t_round(void)
{
    static char a[1 << 16], b[1 << 16];
    int w = 0, h = 0;
    uint8_t *rgb = NULL;
    mkdir(in_scratch("out"), 0777);
    T_OK(write_png(in_scratch("out/a.png"), false));
    T_OK(write_png(in_scratch("out/b.png"), false));
    T_CHECK(entries(in_scratch("out")) == 2, "%d files: a temporary one is left", entries(in_scratch("out")));
    const size_t n = slurp(in_scratch("out/a.png"), a, sizeof a),
                 m = slurp(in_scratch("out/b.png"), b, sizeof b);
    T_CHECK(n > 100 && n == m && memcmp(a, b, n) == 0, "equal input gives equal bytes");
    T_CHECK(memmem(a, n, "Seed: 1", 7) && memmem(a, n, "tEXtparameters", 14) &&
                memmem(a, n, "iTXtfluxpar", 11) && memmem(a, n, "tEXtempty", 9),
            "readable texts, the ones beyond ASCII as such");
    T_CHECK(!memmem(a, n, "tIME", 4), "no time");
    T_OK(fx_png_read(in_scratch("out/a.png"), &w, &h, &rgb));
    T_CHECK(w == W && h == H && rgb && memcmp(rgb, pixels, sizeof pixels) == 0, "%d x %d", w, h);
    free(rgb);
    w = h = 0;
    T_OK(fx_png_read_text(in_scratch("out/a.png"), &w, &h, keep_text, NULL));
    T_CHECK(w == W && h == H && seen_count == 3, "%d x %d, %d texts", w, h, seen_count);
    T_CHECK(strcmp(seen[0], "parameters=a slice of pizza\nSteps: 28, Seed: 1") == 0, "%s", seen[0]);
    T_CHECK(strcmp(seen[1], "fluxpar={\"prompt\":\"gr\xc3\xbc\xc3\x9f dich \xf0\x9f\x8d\x95\"}") == 0, "%s",
            seen[1]);
}

/* What follows the end of the picture is not looked at, even where it looks like a chunk of 2 GiB. */
static void t_behind_the_end(void)
{
    int w = 0, h = 0;
    char bytes[1 << 16];
    const size_t n = slurp(in_scratch("out/a.png"), bytes, sizeof bytes - 64);
    memset(bytes + n, 0x7f, 64);
    put_file(in_scratch("out/more.png"), bytes, n + 64);
    seen_count = 0;
    T_OK(fx_png_read_text(in_scratch("out/more.png"), &w, &h, keep_text, NULL));
    T_CHECK(w == W && h == H && seen_count == 3, "%d x %d, %d texts", w, h, seen_count);
    remove(in_scratch("out/more.png"));
}

/* Other programs' formats: 16-bit grey with alpha, interlaced, text after the pixels. */
static void put_foreign(const char *path)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    FILE *f = fopen(path, "wb");
    png_byte row[8 * 4], *rows[8];
    for (int i = 0; i < 8 * 4; i += 4) memcpy(row + i, "\x80\x80\xff\xff", 4);
    for (int i = 0; i < 8; i++) rows[i] = row;
    png_text t = {PNG_TEXT_COMPRESSION_zTXt, (char *)"late", (char *)"after the pixels", 16, 0, NULL, NULL};
    png_init_io(png, f);
    png_set_IHDR(png, info, 8, 8, 16, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_INTERLACE_ADAM7, 0, 0);
    png_write_info(png, info);
    png_write_image(png, rows);
    png_set_text(png, info, &t, 1);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    fclose(f);
}

static void t_foreign(void)
{
    int w, h;
    uint8_t *rgb;
    put_foreign(in_scratch("grey.png"));
    T_OK(fx_png_read(in_scratch("grey.png"), &w, &h, &rgb));
    T_CHECK(w == 8 && h == 8 && rgb && rgb[0] == 0x80 && rgb[191] == 0x80, "16-bit grey becomes RGB8");
    free(rgb);
    seen_count = 0;
    T_OK(fx_png_read_text(in_scratch("grey.png"), &w, &h, keep_text, NULL));
    T_CHECK(seen_count == 1 && strcmp(seen[0], "late=after the pixels") == 0, "%d texts", seen_count);
}

static void t_bad_input(void)
{
    static char bytes[1 << 16];
    int w, h;
    uint8_t *rgb;
    const char *path = in_scratch("bad.png");
    T_REFUSED(fx_png_read(path, &w, &h, &rgb), FX_EINVAL, path, "No such file");
    put_text(path, "GIF89a, not a PNG");
    T_REFUSED(fx_png_read(path, &w, &h, &rgb), FX_EINVAL, path, "not a PNG");
    const size_t n = slurp(in_scratch("out/a.png"), bytes, sizeof bytes);
    put_file(path, bytes, n / 2);
    T_REFUSED(fx_png_read(path, &w, &h, &rgb), FX_EINVAL, path, "damaged");
    T_REFUSED(fx_png_read_text(path, &w, &h, keep_text, NULL), FX_EINVAL, path, "damaged");
    bytes[n - 20] ^= 1; /* in the pixels: libpng says so */
    put_file(path, bytes, n);
    T_REFUSED(fx_png_read(path, &w, &h, &rgb), FX_EINVAL, path, "damaged PNG file; IDAT: ");
    bytes[n - 20] ^= 1;
    bytes[16 + 1] = 0x7f; /* width of 8 million pixels */
    put_file(path, bytes, n);
    T_REFUSED(fx_png_read(path, &w, &h, &rgb), FX_EINVAL, path, "damaged");
    T_CHECK(!rgb, "no pixels of a refused file");
}

/* An optional chunk of more than 8 MiB is refused before libpng takes memory for it: its name begins with a
 * small letter, whatever the others are. */
static void t_long_chunk(void)
{
    enum { LONG = (8 << 20) + 1 };
    static const unsigned char head[] =
        "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\1\0\0\0\1\x8\2\0\0\0\x90\x77\x53\xde";
    unsigned char *bytes = calloc(LONG + 100, 1);
    const char *path = in_scratch("long.png");
    int w, h;
    memcpy(bytes, head, 33);
    memcpy(bytes + 33, (unsigned char[]){LONG >> 24, LONG >> 16 & 255, LONG >> 8 & 255, LONG & 255}, 4);
    memcpy(bytes + 37, "tEXt", 4);
    put_file(path, bytes, LONG + 100);
    T_REFUSED(fx_png_read_text(path, &w, &h, keep_text, NULL), FX_EINVAL, path, "damaged",
              "a chunk of 8388609 bytes at byte 33");
    remove(path);
    free(bytes);
}

/* ---- refusals ---- */

static void t_existing(void)
{
    char text[10] = "";
    const char *path = in_scratch("out/old.png");
    put_text(path, "precious");
    T_REFUSED(fx_png_check_output(path, false), FX_EINVAL, path, "exists", "-f");
    T_REFUSED(write_png(path, false), FX_EINVAL, path, "exists", "-f");
    T_CHECK(slurp(path, text, 9) == 8 && strcmp(text, "precious") == 0, "the old file was touched");
    T_OK(fx_png_check_output(path, true));
    T_CHECK(slurp(path, text, 9) == 8, "a check does not write");
    T_OK(write_png(path, true));
    T_CHECK(slurp(path, text, 9) == 9 && memcmp(text, "\x89PNG", 4) == 0, "-f overwrites");
    T_CHECK(entries(in_scratch("out")) == 3, "%d files", entries(in_scratch("out")));
}

/* Somebody makes the file between the check and the rename. */
static void t_race(void)
{
    char text[10] = "";
    int fd;
    const char *path = in_scratch("out/race.png");
    T_OK(fx_output_check(path, false));
    T_OK(fx_output_begin(path, &fd));
    put_text(path, "theirs");
    T_REFUSED(fx_output_commit(path, fd, false), FX_EINVAL, path, "exists", "-f");
    T_CHECK(slurp(path, text, 9) == 6 && strcmp(text, "theirs") == 0, "the other file was replaced");
    remove(path);
    T_CHECK(entries(in_scratch("out")) == 3, "%d files", entries(in_scratch("out")));
}

static void t_bad_paths(void)
{
    char name[400];
    T_REFUSED(fx_png_check_output("", false), FX_EINVAL, "empty");
    T_REFUSED(fx_png_check_output(in_scratch("out"), true), FX_EINVAL, "out", "a folder");
    T_REFUSED(fx_png_check_output(in_scratch("out/"), true), FX_EINVAL, "a folder");
    T_REFUSED(fx_png_check_output(in_scratch("none/a.png"), false), FX_EWRITE, "none/a.png", "No such file",
              "create the folder");
    T_REFUSED(fx_png_check_output(in_scratch("out/a.png/b.png"), false), FX_EWRITE, "Not a directory");
    T_REFUSED(fx_png_check_output("/dev/null", true), FX_EINVAL, "/dev/null", "device");
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    T_CHECK(fx_png_check_output(in_scratch("out/%s", name), false) != FX_OK, "a name of 399 characters");
    name[250] = 0;
    T_OK(write_png(in_scratch("out/%s", name), false)); /* longer than the temporary name may be */
    T_CHECK(entries(in_scratch("out")) == 4, "%d files", entries(in_scratch("out")));
    T_CHECK(symlink("missing", in_scratch("out/link.png")) == 0, "symlink");
    T_REFUSED(fx_png_check_output(in_scratch("out/link.png"), false), FX_EINVAL, "link.png", "exists");
    remove(in_scratch("out/link.png"));
}

/* Runs `part` in a child, which may give up rights; returns its failures, or -1 when it was not allowed to
 * try. */
static int in_child(int (*part)(void))
{
    int status = 0;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        const int result = part();
        fflush(stdout);
        _exit(result < 0 ? 99 : result);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return 1;
    return WEXITSTATUS(status) == 99 ? -1 : WEXITSTATUS(status);
}

static void report_child(const char *what, int result)
{
    if (result < 0)
        T_SKIP("%s: not permitted here", what);
    else
        T_CHECK(result == 0, "%s", what);
}

/* A disk of its own, 32 KiB: full, then read-only. */
static int small_disk(void)
{
    static uint8_t noise[200 * 200 * 3];
    unsigned x = 1;
    const char *dir = in_scratch("disk"), *path = in_scratch("disk/a.png");
    const int failed = test_failed;
    mkdir(dir, 0777);
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return -1;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return -1;
    if (mount("tmpfs", dir, "tmpfs", 0, "size=32k") != 0) return -1;
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
    T_OK(fx_png_check_output(path, false));
    T_REFUSED(fx_png_write(path, noise, 200, 200, 0, NULL, false, 2), FX_EWRITE, path, "No space left");
    T_CHECK(entries(dir) == 0, "part of a file is left on the full disk");
    if (mount("none", dir, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0) return -1;
    T_REFUSED(fx_png_check_output(path, false), FX_EWRITE, path, "Read-only");
    T_REFUSED(write_png(path, false), FX_EWRITE, path, "Read-only");
    return test_failed - failed;
}

static int no_permission(void)
{
    const char *path = in_scratch("locked/a.png");
    const int failed = test_failed;
    mkdir(in_scratch("locked"), 0555);
    chmod(scratch, 0755);
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return -1;
    T_REFUSED(fx_png_check_output(path, false), FX_EWRITE, path, "Permission denied");
    T_REFUSED(write_png(path, false), FX_EWRITE, path, "Permission denied");
    return test_failed - failed;
}

static int file_limit(void)
{
    const int failed = test_failed;
    signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit = {100, 100};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return -1;
    T_REFUSED(write_png(in_scratch("out/limit.png"), false), FX_EWRITE, "limit.png", "File too large");
    T_CHECK(access(in_scratch("out/limit.png"), F_OK) != 0 && entries(in_scratch("out")) == 4,
            "something is left");
    return test_failed - failed;
}

/* The encoder's own refusal is told in its words: no errno is set. A picture of nothing is refused before. */
static void t_sizes(void)
{
    enum { WIDE = 1000001 }; /* libpng takes a million */
    uint8_t *row = calloc(WIDE, 3);
    const char *path = in_scratch("out/wide.png");
    T_REFUSED(fx_png_write(path, row, WIDE, 1, 0, NULL, false, 2), FX_EWRITE, path,
              "PNG encoder: Invalid IHDR data");
    T_REFUSED(fx_png_write(path, row, 0, 1, 0, NULL, false, 2), FX_EINVAL, path, "a picture of 0 x 1 pixels");
    T_REFUSED(fx_png_write(path, row, 1, 0, 0, NULL, false, 2), FX_EINVAL, path, "a picture of 1 x 0 pixels");
    free(row);
}

/* A signal in the middle of writing: the handler removes the temporary file. */
static void cleanup_and_exit(int number)
{
    (void)number;
    fx_png_cleanup();
    _exit(0);
}

static int interrupted(void)
{
    enum { SIDE = 4000 };
    uint8_t *big = calloc(SIDE * SIDE, 3);
    signal(SIGALRM, cleanup_and_exit);
    ualarm(20000, 0);
    (void)fx_png_write(in_scratch("out/big.png"), big, SIDE, SIDE, 0, NULL, false, 2);
    return 1; /* written before the alarm: make the picture larger */
}

int main(void)
{
    if (!scratch_open()) return 1;
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * i / 7);
    t_round();
    t_behind_the_end();
    t_foreign();
    t_bad_input();
    t_long_chunk();
    t_existing();
    t_race();
    t_bad_paths();
    report_child("full and read-only disk", in_child(small_disk));
    report_child("folder without permission", in_child(no_permission));
    report_child("file size limit", in_child(file_limit));
    report_child("killed while writing", in_child(interrupted));
    t_sizes();
    check_strips(in_scratch(
        "out/strips.png")); /* after the children: threads that were started once are not in them */
    T_CHECK(entries(in_scratch("out")) == 4, "%d files after all failures", entries(in_scratch("out")));
    fx_png_cleanup(); /* nothing to do */
    scratch_close();
    return test_end("t_png");
}
