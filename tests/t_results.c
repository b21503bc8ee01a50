/* The results file of a batch (launch/batch/results.h): what is written is read again, what a killed writer left half goes, and
 * what is no results file stays as it is. */
#include "launch/batch/results.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/test.h"

#define ROW(path, key) "{\"status\":\"ok\",\"line\":1,\"path\":\"" path "\",\"key\":\"" key "\"}"

static char folder[] = "/tmp/fluxpar-t_results.XXXXXX";
static const char *const name = "r.jsonl";

static void put(const char *text, size_t size)
{
    const int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    T_CHECK(fd >= 0 && write(fd, text, size) == (ssize_t)size, "cannot write");
    close(fd);
}
static bool file_is(const char *text)
{
    static char got[1 << 16];
    const int fd = open(name, O_RDONLY);
    const ssize_t n = fd >= 0 ? read(fd, got, sizeof got - 1) : 0;
    if (fd >= 0) close(fd);
    got[n > 0 ? n : 0] = 0;
    if (strcmp(got, text)) printf("the file is '%s'\n", got);
    return !strcmp(got, text);
}

static fx_status open_and_close(bool resume, bool force)
{
    fx_results *r;
    const fx_status st = fx_results_open(name, resume, force, &r);
    fx_results_close(&r);
    return st;
}

static void test_written(void)
{
    fx_results *r;
    uint64_t drawn, again;
    T_OK(fx_results_open(name, false, false, &r));
    T_OK(fx_results_add(r, json_pack("{s:s, s:s, s:s}", "status", "ok", "path", "a.png", "key", "1")));
    T_CHECK(file_is("{\"status\":\"ok\",\"path\":\"a.png\",\"key\":\"1\"}\n"), "a row");
    T_OK(fx_results_drawn(r, &drawn));
    T_OK(fx_results_drawn(r, &again));
    T_CHECK(drawn == again && drawn <= UINT32_MAX, "%llu, %llu", (unsigned long long)drawn,
            (unsigned long long)again);
    T_OK(fx_results_add(r, json_pack("{s:s, s:s, s:s}", "status", "failed", "path", "b.png", "key", "2")));
    fx_results *second;
    T_CHECK(fx_results_open(name, true, false, &second) == FX_EINVAL && strstr(fx_error(), "another run"),
            "%s", fx_error());
    T_CHECK(!second, "not NULL");
    fx_results_close(&r);

    T_CHECK(open_and_close(false, false) == FX_EINVAL && strstr(fx_error(), "--resume"), "%s", fx_error());
    T_OK(fx_results_open(name, true, false, &r));
    T_CHECK(fx_results_has(r, "a.png", "1"), "made");
    T_CHECK(!fx_results_has(r, "a.png", "2") && !fx_results_has(r, "b.png", "2") &&
                !fx_results_has(r, "c", "1"),
            "not made");
    T_OK(fx_results_drawn(r, &again));
    T_CHECK(drawn == again, "another number is drawn");
    fx_results_close(&r);
    T_OK(open_and_close(false, true));
    T_CHECK(file_is(""), "-f begins anew");
    T_OK(open_and_close(false, false)); /* an empty file says nothing */
}

static void test_torn(void)
{
    static const struct {
        const char *text;
        size_t size;
        const char *then;
    } rows[] = {
        {"", 0, ""},
        {ROW("a", "1") "\n", sizeof ROW("a", "1"), ROW("a", "1") "\n"},
        {ROW("a", "1"), sizeof ROW("a", "1") - 1, ROW("a", "1") "\n"},
        {ROW("a", "1") "\n{\"status\":\"ok\",\"li", sizeof ROW("a", "1") + 18, ROW("a", "1") "\n"},
        {ROW("a", "1") "\n{", sizeof ROW("a", "1") + 1, ROW("a", "1") "\n"},
        {ROW("a", "1") "\n\0\0\0", sizeof ROW("a", "1") + 3, ROW("a", "1") "\n"},
        {"{\"stat", 6, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fx_results *r;
        put(rows[i].text, rows[i].size);
        T_OK(fx_results_open(name, true, false, &r));
        T_CHECK(fx_results_has(r, "a", "1") == (*rows[i].then != 0), "row %zu: its row", i);
        T_CHECK(file_is(rows[i].then), "row %zu", i);
        T_OK(fx_results_add(r, json_pack("{s:s, s:s, s:s}", "status", "ok", "path", "z", "key", "9")));
        fx_results_close(&r);
        T_OK(fx_results_open(name, true, false, &r)); /* what is added later is whole */
        T_CHECK(fx_results_has(r, "z", "9"), "row %zu: the row added", i);
        fx_results_close(&r);
    }
}

static void test_foreign(void)
{
    static const char *const texts[] = {"my notes",
                                        "my notes\n",
                                        "{\"prompt\":\"x\"}\n",
                                        "{\"prompt\":\"x\"}",
                                        "{\"status\":3}\n",
                                        ROW("a", "1") "\nx\n" ROW("b", "1") "\n",
                                        ROW("a", "1") "\n{\"status\":\"ok\",\n",
                                        "\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put(texts[i], strlen(texts[i]));
        T_CHECK(open_and_close(true, false) == FX_EINVAL && strstr(fx_error(), "no results file"), "%zu: %s",
                i, fx_error());
        T_CHECK(file_is(texts[i]), "%zu: it was changed", i);
    }
    char *long_line = malloc(FX_RESULT_BYTES + 100);
    memset(long_line, 'x', FX_RESULT_BYTES + 100);
    memcpy(long_line, "{\"status\":", 10);
    put(long_line, FX_RESULT_BYTES + 100);
    T_CHECK(open_and_close(true, false) == FX_EINVAL, "a line too long");
    free(long_line);
    put("", 0);
}

static void test_places(void)
{
    fx_results *r;
    T_CHECK(fx_results_open("none/r.jsonl", true, false, &r) == FX_EWRITE && strstr(fx_error(), "--results"),
            "%s", fx_error());
    T_CHECK(!mkfifo("pipe", 0600) && fx_results_open("pipe", true, false, &r) == FX_EINVAL, "a pipe");
    T_CHECK(fx_results_open(".", true, false, &r) == FX_EWRITE, "a folder");
    T_CHECK(fx_results_open("/dev/null", true, false, &r) == FX_EINVAL && strstr(fx_error(), "not a file"),
            "%s", fx_error());
}

/* Where a row does not fit, the file ends with the row before. */
static void test_full(void)
{
    fx_results *r;
    struct rlimit before, small;
    signal(SIGXFSZ, SIG_IGN);
    put(ROW("a", "1") "\n", sizeof ROW("a", "1"));
    T_OK(fx_results_open(name, true, false, &r));
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = sizeof ROW("a", "1") + 10;
    setrlimit(RLIMIT_FSIZE, &small);
    const fx_status st =
        fx_results_add(r, json_pack("{s:s, s:s, s:s}", "status", "ok", "path", "long enough", "key", "9"));
    setrlimit(RLIMIT_FSIZE, &before);
    T_CHECK(st == FX_EWRITE && strstr(fx_error(), "cannot be written"), "%s", fx_error());
    T_CHECK(file_is(ROW("a", "1") "\n"), "half a row");
    T_CHECK(fx_results_add(r, NULL) == FX_ENOMEM, "no row");
    fx_results_close(&r);
}

static void test_clean(void)
{
    char text[] = "a\xff\xc3\xa9\x1b[31m\n\x7f z\xc3";
    fx_results_clean(text);
    T_CHECK(!strcmp(text, "a?\xc3\xa9?[31m?? z?"), "%s", text);
}

int main(void)
{
    if (!mkdtemp(folder) || chdir(folder)) return 1;
    test_written();
    test_torn();
    test_foreign();
    test_places();
    test_full();
    test_clean();
    unlink(name);
    unlink("pipe");
    if (chdir("/") || rmdir(folder)) printf("%s is not empty\n", folder);
    return test_end("t_results");
}
