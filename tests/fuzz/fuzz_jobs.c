/* A jobs file (launch/batch/jobs.h): cut into lines through a small buffer, each line parsed. Then the same bytes as a results
 * file that a batch goes on with. */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/batch/jobs.h"
#include "launch/batch/lines.h"
#include "launch/batch/results.h"
#include "runtime/text/utf8.h"

static void check_job(const char *text, size_t size)
{
    fx_job j;
    size_t bad;
    if (fx_job_parse(text, size, &j) == FX_OK) {
        FUZZ_EXPECT(j.prompt && fx_utf8_valid(j.prompt, strlen(j.prompt), &bad));
        FUZZ_EXPECT(!j.output || *j.output);
        FUZZ_EXPECT(j.width >= 0 && j.width <= 65536 && j.height >= 0 && j.height <= 65536);
        FUZZ_EXPECT(j.steps >= 0 && j.steps <= 1000 && j.count >= 0 && j.count <= 10000);
        FUZZ_EXPECT(j.guidance == -1 || (j.guidance >= 0 && j.guidance <= 100));
    } else
        FUZZ_EXPECT(*fx_error());
    fx_job_free(&j);
}

/* Every byte is in exactly one line, or is its newline. */
static void check_lines(const char *path, const uint8_t *data, size_t size, size_t longest)
{
    fx_lines *l;
    fx_line line;
    size_t at = 0;
    int64_t number = 0;
    FUZZ_EXPECT(fx_lines_open(open(path, O_RDONLY), longest, &l) == FX_OK);
    for (;;) {
        FUZZ_EXPECT(fx_lines_next(l, 5, &line) == FX_OK && line.kind != FX_LINE_LATER);
        if (line.kind == FX_LINE_END) break;
        const uint8_t *end = memchr(data + at, '\n', size - at);
        const size_t n = end ? (size_t)(end - data) - at : size - at;
        FUZZ_EXPECT(line.number == ++number && line.torn == !end);
        FUZZ_EXPECT((line.kind == FX_LINE_TOO_LONG) == (n > longest));
        if (line.kind == FX_LINE_TEXT) {
            FUZZ_EXPECT(line.size == n && !memcmp(line.text, data + at, n) && !line.text[n]);
            FUZZ_EXPECT(line.offset == (int64_t)at);
            if (!fx_job_blank(line.text, line.size)) check_job(line.text, line.size);
        }
        at += n + (end != NULL);
    }
    FUZZ_EXPECT(at == size && fx_lines_left(l) == 0);
    fx_lines_close(&l);
}

static void check_results(const char *path)
{
    fx_results *r;
    struct stat info;
    char last = '\n';
    const fx_status st = fx_results_open(path, true, false, &r);
    fx_results_close(&r);
    if (st != FX_OK) return;
    const int fd = open(path, O_RDONLY);
    FUZZ_EXPECT(fd >= 0 && !fstat(fd, &info));
    FUZZ_EXPECT(!info.st_size || pread(fd, &last, 1, info.st_size - 1) == 1);
    FUZZ_EXPECT(last == '\n');
    close(fd);
}

FUZZ_TARGET(jobs)
{
    char path[256];
    fuzz_write("jobs.jsonl", data, size);
    snprintf(path, sizeof path, "%s", fuzz_path("jobs.jsonl"));
    check_lines(path, data, size, 64);
    check_lines(path, data, size, FX_JOB_BYTES);
    check_results(path);
    return 0;
}
