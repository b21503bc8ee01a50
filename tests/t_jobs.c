/* Lines of a batch (launch/batch/jobs.h, lines.h): what is taken, what is refused and with which words; lines of any length
 * out of files and slow pipes. */
#include "launch/batch/jobs.h"

#include <fcntl.h>
#include <unistd.h>

#include "launch/batch/lines.h"
#include "tests/test.h"

static void test_taken(void)
{
    fx_job j;
    const char all[] = "{\"prompt\":\"a \\u00e9\",\"seed\":7,\"width\":512,\"height\":768.0,\"steps\":4,"
                       "\"guidance\":2.5,\"output\":\"d/x.png\",\"n\":3}";
    T_OK(fx_job_parse(all, strlen(all), &j));
    T_CHECK(!strcmp(j.prompt, "a \xc3\xa9") && !strcmp(j.output, "d/x.png"), "texts");
    T_CHECK(j.has_seed && j.seed == 7 && j.width == 512 && j.height == 768 && j.steps == 4, "numbers");
    T_CHECK(j.count == 3 && j.guidance == 2.5, "n and guidance");
    fx_job_free(&j);
    T_CHECK(!j.prompt && !j.output, "not freed");

    const char least[] = " {\"prompt\": \"\", \"seed\": null, \"width\": null, \"output\": null} \r";
    T_OK(fx_job_parse(least, strlen(least), &j));
    T_CHECK(j.prompt && !*j.prompt && !j.output && !j.has_seed, "a null is as good as nothing");
    T_CHECK(!j.width && !j.height && !j.steps && !j.count && j.guidance == -1, "not given");
    fx_job_free(&j);

    const char low[] = "{\"prompt\":\"\",\"width\":1,\"height\":1,\"steps\":1,\"guidance\":0,\"n\":1}";
    T_OK(fx_job_parse(low, strlen(low), &j));
    T_CHECK(j.width == 1 && j.height == 1 && j.steps == 1 && j.guidance == 0 && j.count == 1, "the least");
    fx_job_free(&j);
    const char high[] = "{\"prompt\":\"\",\"width\":65536,\"steps\":1000,\"guidance\":100,\"n\":10000}";
    T_OK(fx_job_parse(high, strlen(high), &j));
    T_CHECK(j.width == 65536 && j.steps == 1000 && j.guidance == 100 && j.count == 10000, "the most");
    fx_job_free(&j);

    static const struct {
        const char *text;
        uint64_t seed;
    } seeds[] = {{"0", 0},
                 {"9223372036854775807", INT64_MAX},
                 {"\"9223372036854775808\"", (uint64_t)INT64_MAX + 1},
                 {"\"18446744073709551615\"", UINT64_MAX},
                 {"\"7\"", 7}};
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        char line[80];
        snprintf(line, sizeof line, "{\"prompt\":\"x\",\"seed\":%s}", seeds[i].text);
        T_OK(fx_job_parse(line, strlen(line), &j));
        T_CHECK(j.has_seed && j.seed == seeds[i].seed, "seed %s", seeds[i].text);
        fx_job_free(&j);
    }
}

static void refused(const char *line, size_t size, const char *words)
{
    fx_job j;
    const fx_status st = fx_job_parse(line, size, &j);
    T_CHECK(st == FX_EINVAL && strstr(fx_error(), words), "%.60s: status %d, '%s', wanted '%s'", line, st,
            st ? fx_error() : "", words);
    fx_job_free(&j);
}

static void test_refused(void)
{
    static const char *const rows[][2] = {
        {"", "not valid JSON"},
        {"not json", "not valid JSON"},
        {"{\"prompt\":\"x\"", "not valid JSON"},
        {"{\"prompt\":\"x\"} {}", "not valid JSON"},
        {"{\"prompt\":\"x\",\"prompt\":\"y\"}", "duplicate"},
        {"{\"prompt\":\"\\u0000\"}", "not valid JSON"},
        {"{\"prompt\":\"\xff\"}", "not valid JSON"},
        {"[]", "not a JSON object"},
        {"3", "not valid JSON"},
        {"{}", "no \"prompt\""},
        {"{\"seed\":3}", "no \"prompt\""},
        {"{\"prompt\":null}", "no \"prompt\""},
        {"{\"prompt\":3}", "\"prompt\": 3 is not possible; it is a string"},
        {"{\"prompt\":{\"a\":[1,2]}}", "it is a string"},
        {"{\"prompt\":\"x\",\"output\":\"\"}", "the name of a file"},
        {"{\"prompt\":\"x\",\"output\":7}", "it is a string"},
        {"{\"prompt\":\"x\",\"width\":0}", "a whole number from 1 to 65536"},
        {"{\"prompt\":\"x\",\"width\":65537}", "a whole number from 1 to 65536"},
        {"{\"prompt\":\"x\",\"height\":-16}", "\"height\": -16 is not possible"},
        {"{\"prompt\":\"x\",\"height\":512.5}", "a whole number"},
        {"{\"prompt\":\"x\",\"height\":\"512\"}", "a whole number"},
        {"{\"prompt\":\"x\",\"height\":1e300}", "a whole number"},
        {"{\"prompt\":\"x\",\"steps\":1001}", "a whole number from 1 to 1000"},
        {"{\"prompt\":\"x\",\"n\":10001}", "a whole number from 1 to 10000"},
        {"{\"prompt\":\"x\",\"n\":true}", "a whole number"},
        {"{\"prompt\":\"x\",\"guidance\":100.5}", "a number from 0 to 100"},
        {"{\"prompt\":\"x\",\"guidance\":-1}", "a number from 0 to 100"},
        {"{\"prompt\":\"x\",\"guidance\":\"3\"}", "a number from 0 to 100"},
        {"{\"prompt\":\"x\",\"seed\":-1}", "a whole number from 0 to 18446744073709551615"},
        {"{\"prompt\":\"x\",\"seed\":1.5}", "a whole number from 0"},
        {"{\"prompt\":\"x\",\"seed\":9223372036854775808}", "as a string"},
        {"{\"prompt\":\"x\",\"seed\":\"18446744073709551616\"}", "a whole number from 0"},
        {"{\"prompt\":\"x\",\"seed\":\"-1\"}", "a whole number from 0"},
        {"{\"prompt\":\"x\",\"seed\":\"7x\"}", "a whole number from 0"},
        {"{\"prompt\":\"x\",\"seed\":\"\"}", "a whole number from 0"},
        {"{\"prompt\":\"x\",\"sed\":3}", "unknown field \"sed\"; did you mean \"seed\"?"},
        {"{\"prompt\":\"x\",\"negative_prompt\":3}", "unknown field \"negative_prompt\""},
        {"{\"prompt\":\"x\",\"sampler_name_of_mine\":3}", "the fields are prompt, seed,"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        refused(rows[i][0], strlen(rows[i][0]), rows[i][1]);
    refused("{\"prompt\":\"x\"}\0", 15, "not valid JSON");

    const size_t n = 100000;
    char *deep = malloc(FX_JOB_BYTES + 2);
    memset(deep, '[', n);
    refused(deep, n, "nested too deep");
    memset(deep, 'x', FX_JOB_BYTES + 1);
    refused(deep, FX_JOB_BYTES + 1, "longer than");
    memcpy(deep, "{\"prompt\":\"", 11); /* a prompt of more than 1 MiB */
    memcpy(deep + FX_JOB_BYTES - 2, "\"}", 3);
    refused(deep, FX_JOB_BYTES, "the limit is");
    memset(deep, 'k', n); /* messages stay short */
    memcpy(deep, "{\"prompt\":\"", 11);
    memcpy(deep + n, "\",\"width\":\"", 11);
    memset(deep + n + 11, 'w', n);
    memcpy(deep + 2 * n, "\"}", 3);
    refused(deep, strlen(deep), "...");
    T_CHECK(strlen(fx_error()) < 200, "%zu characters", strlen(fx_error()));
    free(deep);
}

static void test_blank(void)
{
    T_CHECK(fx_job_blank("", 0) && fx_job_blank(" \t\r", 3), "blanks");
    T_CHECK(!fx_job_blank(" x", 2) && !fx_job_blank("\0", 1), "no blanks");
}

/* ---- lines ---- */

static int file_of(const char *text, size_t size)
{
    char name[] = "/tmp/fluxpar-t_jobs.XXXXXX";
    const int fd = mkstemp(name);
    unlink(name);
    T_CHECK(fd >= 0 && write(fd, text, size) == (ssize_t)size && !lseek(fd, 0, SEEK_SET), "no file");
    return fd;
}

static bool line_is(fx_lines *l, fx_line_kind kind, int64_t number, const char *text, bool torn)
{
    fx_line line;
    if (fx_lines_next(l, 2, &line) != FX_OK) return false;
    return line.kind == kind && (kind == FX_LINE_END || (line.number == number && line.torn == torn)) &&
           (kind != FX_LINE_TEXT || (line.size == strlen(text) && !strcmp(line.text, text)));
}

static void test_files(void)
{
    fx_lines *l;
    static const char text[] = "one\n\n12345678\n123456789\n1234567890123456789012345\nlast";
    T_OK(fx_lines_open(file_of(text, strlen(text)), 8, &l));
    T_CHECK(fx_lines_left(l) == 5, "%lld newlines", (long long)fx_lines_left(l));
    T_CHECK(line_is(l, FX_LINE_TEXT, 1, "one", false), "a line");
    T_CHECK(fx_lines_left(l) == 4, "%lld newlines left", (long long)fx_lines_left(l));
    T_CHECK(line_is(l, FX_LINE_TEXT, 2, "", false), "an empty line");
    T_CHECK(line_is(l, FX_LINE_TEXT, 3, "12345678", false), "as long as may be");
    T_CHECK(line_is(l, FX_LINE_TOO_LONG, 4, "", false), "one byte more");
    T_CHECK(line_is(l, FX_LINE_TOO_LONG, 5, "", false), "several buffers");
    T_CHECK(line_is(l, FX_LINE_TEXT, 6, "last", true), "without a newline");
    T_CHECK(line_is(l, FX_LINE_END, 0, "", false) && line_is(l, FX_LINE_END, 0, "", false), "the end stays");
    fx_lines_close(&l);
    T_OK(fx_lines_open(file_of("123456789012", 12), 8, &l));
    T_CHECK(line_is(l, FX_LINE_TOO_LONG, 1, "", true) && line_is(l, FX_LINE_END, 0, "", false),
            "too long and torn");
    fx_lines_close(&l);
    T_OK(fx_lines_open(file_of("", 0), 8, &l));
    T_CHECK(line_is(l, FX_LINE_END, 0, "", false), "an empty file");
    fx_lines_close(&l);
    fx_lines_close(&l);
    fx_line line;
    T_OK(fx_lines_open(open("/", O_RDONLY), 8, &l));
    T_CHECK(fx_lines_next(l, 1, &line) == FX_EINVAL && strstr(fx_error(), "line 1 cannot be read"), "%s",
            fx_error());
    fx_lines_close(&l);
}

static void test_pipe(void)
{
    fx_lines *l;
    fx_line line;
    int end[2];
    T_CHECK(!pipe(end), "no pipe");
    T_OK(fx_lines_open(end[0], 8, &l));
    T_OK(fx_lines_next(l, 0, &line));
    T_CHECK(line.kind == FX_LINE_LATER && fx_lines_left(l) == 0, "nothing yet");
    T_CHECK(write(end[1], "ab", 2) == 2, "write");
    T_OK(fx_lines_next(l, 0.01, &line));
    T_CHECK(line.kind == FX_LINE_LATER, "half a line");
    T_CHECK(write(end[1], "c\nd", 3) == 3, "write");
    T_CHECK(line_is(l, FX_LINE_TEXT, 1, "abc", false), "its other half");
    close(end[1]);
    T_CHECK(line_is(l, FX_LINE_TEXT, 2, "d", true) && line_is(l, FX_LINE_END, 0, "", false), "the end");
    fx_lines_close(&l);
}

int main(void)
{
    test_taken();
    test_refused();
    test_blank();
    test_files();
    test_pipe();
    return test_end("t_jobs");
}
