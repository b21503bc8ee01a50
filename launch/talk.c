/* The voice of the program; see talk.h. stdout is not touched here: results go there, from main.c and the
 * commands. */
#include "launch/talk.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/core/log.h"

enum { HOLD_MS = 500 };

static struct {
    int rank, ranks, prefix_length;
    bool quiet, verbose;
    char host[64], device[64], prefix[192];
    fx_phase_slot phase; /* until there is a shared one */
    fx_phase_slot *_Atomic shared_phase;
    int own; /* claim word of a process alone */
    int *_Atomic claim;
    bool named;             /* the claim is a name, not a shared word */
    struct sockaddr_un job; /* claimed by name while there is no shared word */
} talk = {.ranks = 1};

static void write_all(const char *text, size_t length)
{
    while (length) {
        const ssize_t n = write(STDERR_FILENO, text, length);
        if (n <= 0) return; /* nobody listens; the exit code still tells */
        text += n;
        length -= (size_t)n;
    }
}

/* One line: control characters of file names and messages become blanks. */
static void write_line(const char *prefix, const char *text)
{
    char line[4096];
    int n = snprintf(line, sizeof line - 1, "%s%s", prefix, text);
    if (n > (int)sizeof line - 2) n = sizeof line - 2;
    for (int i = 0; i < n; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 127) line[i] = ' ';
    line[n++] = '\n';
    write_all(line, (size_t)n);
}

static void sink(fx_log_level level, const char *message)
{
    char prefix[64];
    if (talk.quiet || (level == FX_LOG_DETAIL ? !talk.verbose : talk.rank != 0)) return;
    if (level == FX_LOG_DETAIL)
        snprintf(prefix, sizeof prefix, "fluxpar: rank %d: ", talk.rank);
    else
        snprintf(prefix, sizeof prefix, "fluxpar: %s: ", level == FX_LOG_WARN ? "warning" : "note");
    write_line(prefix, message);
}

static void make_prefix(char *out, size_t size, int rank)
{
    snprintf(out, size, "fluxpar: error: rank %d (%s, %s): ", rank, fx_talk_host(),
             talk.device[0] ? talk.device : "cpu");
}

/* Before the ranks share memory they are told apart by what their launcher set: a socket name without a file,
 * held until its process ends. socket and bind may be called in signal handlers. */
static void name_job(void)
{
    const char *space = getenv("PMIX_NAMESPACE"), *job = getenv("SLURM_JOB_ID"),
               *step = getenv("SLURM_STEP_ID");
    talk.job.sun_family = AF_UNIX; /* sun_path[0] stays 0: no file */
    snprintf(talk.job.sun_path + 1, sizeof talk.job.sun_path - 1, "fluxpar-%ld-%ld-%.30s-%.12s-%.12s",
             (long)getuid(), (long)getppid(), space ? space : "", job ? job : "", step ? step : "");
}

static bool claim_job(void)
{
    if (talk.ranks == 1 || !talk.job.sun_family) return true;
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* stays open: it is the claim */
    return fd < 0 || !bind(fd, (const struct sockaddr *)&talk.job, sizeof talk.job) || errno != EADDRINUSE;
}

void fx_talk_open(int rank, int ranks, const char *device, bool quiet, bool verbose)
{
    talk.rank = rank;
    talk.ranks = ranks;
    talk.quiet = quiet;
    talk.verbose = verbose;
    snprintf(talk.device, sizeof talk.device, "%s", device);
    make_prefix(talk.prefix, sizeof talk.prefix, rank);
    talk.prefix_length = (int)strlen(talk.prefix);
    if (!atomic_load(&talk.claim)) atomic_store(&talk.claim, &talk.own);
    if (!talk.job.sun_family) name_job();
    fx_log_install(sink);
}

bool fx_talk_quiet(void)
{
    return talk.quiet || talk.rank != 0;
}

const char *fx_talk_host(void)
{
    if (!talk.host[0] && gethostname(talk.host, sizeof talk.host - 1))
        snprintf(talk.host, sizeof talk.host, "?");
    talk.host[strcspn(talk.host, ".")] = 0;
    return talk.host;
}

void fx_talk_share(int *word)
{
    atomic_store(&talk.claim, word ? word : &talk.own);
}

void fx_talk_mute(void)
{
    talk.own = 1;
    fx_talk_share(NULL);
}

bool fx_talk_claim(void)
{
    int *word = atomic_load(&talk.claim);
    if (__atomic_exchange_n(word ? word : &talk.own, 1, __ATOMIC_SEQ_CST)) return false;
    const int saved = errno;
    const bool shared = word && word != &talk.own, mine = shared || claim_job();
    talk.named = mine && !shared && talk.ranks > 1;
    errno = saved;
    return mine;
}

void fx_talk_hold(void)
{
    if (talk.named) poll(NULL, 0, HOLD_MS);
}

void fx_talk(const char *fmt, ...)
{
    if (fx_talk_quiet()) return;
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    write_line("", text);
}

void fx_talk_error(fx_status status, int rank, const char *message)
{
    if (!fx_talk_claim()) return;
    char prefix[192], text[3072];
    make_prefix(prefix, sizeof prefix, rank < 0 ? talk.rank : rank);
    snprintf(text, sizeof text, "%s", *message ? message : fx_status_name(status));
    if (talk.verbose) {
        const size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, " [%s, %s]", fx_status_name(status), fx_error_where());
    }
    write_line(prefix, text);
}

const char *fx_talk_prefix(int *length)
{
    *length = talk.prefix_length;
    return talk.prefix;
}

static fx_phase_slot *phase_slot(void)
{
    fx_phase_slot *shared = atomic_load(&talk.shared_phase);
    return shared ? shared : &talk.phase;
}

void fx_talk_phase(const char *phase)
{
    fx_phase_slot *slot = phase_slot();
    const int next = !__atomic_load_n(&slot->which, __ATOMIC_SEQ_CST);
    snprintf(slot->text[next], FX_PHASE_CHARS, "%s", phase);
    __atomic_store_n(&slot->which, next, __ATOMIC_SEQ_CST);
}

const char *fx_talk_phase_now(void)
{
    const fx_phase_slot *slot = phase_slot();
    const char *phase = slot->text[__atomic_load_n(&slot->which, __ATOMIC_SEQ_CST) & 1];
    return *phase ? phase : "start";
}

void fx_talk_phase_share(fx_phase_slot *slot)
{
    char now[FX_PHASE_CHARS];
    fx_talk_phase_of(phase_slot(), now);
    atomic_store(&talk.shared_phase, slot);
    fx_talk_phase(now);
}

void fx_talk_phase_of(const fx_phase_slot *slot, char text[FX_PHASE_CHARS])
{
    const char *from = slot->text[__atomic_load_n(&slot->which, __ATOMIC_SEQ_CST) & 1];
    int n = 0;
    for (; n < FX_PHASE_CHARS - 1 && from[n]; n++) text[n] = from[n];
    text[n] = 0;
}
