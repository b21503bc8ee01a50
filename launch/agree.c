/* Agreement at start; see agree.h. Every rank describes what it has as a list of texts; hashes of the lists are
 * compared, and only where they differ are the lists themselves. Weights are not read: a header names and
 * places all tensors, and the store compares samples of the bytes once it is open. */
#include "launch/agree.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/talk.h"

typedef struct card {
    char version[64], host[64];
    uint64_t list;
} card;

typedef struct texts { /* one after the other, each closed by a zero byte */
    char *list;
    size_t size;
} texts;

static uint64_t fnv(uint64_t hash, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return hash;
}
static const uint64_t FNV_START = 0xcbf29ce484222325u;

/* ---- comparison ---- */

/* Hands *first the list of rank 0. Collective. */
static fx_status list_of_first(fx_run *s, const texts *mine, texts *first)
{
    uint64_t size = mine->size;
    FX_TRY(fx_comm_broadcast(s->comm, 0, &size, sizeof size));
    *first = (texts){calloc(1, size + 1), size};
    fx_status st = first->list ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory to compare the ranks");
    st = fx_run_vote(s, st);
    if (!first->list) return st ? st : FX_ENOMEM; /* the vote has failed then */
    FX_TRY(st);
    if (s->rank == 0) memcpy(first->list, mine->list, size);
    return fx_comm_broadcast(s->comm, 0, first->list, size);
}

/* The first texts in which the lists differ, "" where one has ended. */
static bool difference(const texts *mine, const texts *first, int *index, const char **a, const char **b)
{
    *a = mine->list, *b = first->list;
    for (*index = 0;; ++*index) {
        const bool more_a = *a < mine->list + mine->size, more_b = *b < first->list + first->size;
        if (!more_a) *a = "";
        if (!more_b) *b = "";
        if (strcmp(*a, *b)) return true;
        if (!more_a || !more_b) return false;
        *a += strlen(*a) + 1;
        *b += strlen(*b) + 1;
    }
}

/* All ranks' cards -> cards[ranks]. Collective. */
static fx_status exchange_cards(fx_run *s, const card *own, card **cards)
{
    const size_t n = (size_t)s->ranks;
    card *all = calloc(n, sizeof *all);
    size_t *bytes = calloc(2 * n, sizeof *bytes);
    fx_status st = all && bytes ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory to compare the ranks");
    st = fx_run_vote(s, st);
    if (!st && !(all && bytes)) st = FX_ENOMEM; /* the vote has failed then */
    if (st) goto out;
    for (size_t r = 0; r < n; r++) {
        bytes[r] = sizeof *own;
        bytes[n + r] = r * sizeof *own;
    }
    FX_TRY_OUT(fx_comm_all_gather(s->comm, own, all, bytes, bytes + n));
    *cards = all;
    all = NULL;
out:
    free(all);
    free(bytes);
    return st;
}

static bool equal_lists(const fx_run *s, const card *cards)
{
    for (int r = 1; r < s->ranks; r++)
        if (cards[r].list != cards[0].list) return false;
    return true;
}

/* ---- program and arguments ---- */

/* The identity the linker wrote into this program, as text; "" where there is none. */
static int find_build(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_NOTE) continue;
        const char *at = (const char *)(info->dlpi_addr + p->p_vaddr), *end = at + p->p_memsz;
        while (end - at >= (ptrdiff_t)sizeof(ElfW(Nhdr))) {
            const ElfW(Nhdr) *note = (const void *)at;
            const char *name = at + sizeof *note, *id = name + ((note->n_namesz + 3u) & ~3u);
            if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && !memcmp(name, "GNU", 4)) {
                for (unsigned k = 0; k < note->n_descsz && k < 8; k++)
                    snprintf((char *)out + 2 * k, 3, "%02x", (unsigned char)id[k]);
                return 1;
            }
            at = id + ((note->n_descsz + 3u) & ~3u);
        }
    }
    return 1; /* the first object is the program itself */
}

/* All flag values. */
static fx_status argument_list(const fx_options *o, texts *out)
{
    FILE *to = open_memstream(&out->list, &out->size);
    FX_CHECK(to, FX_ENOMEM, "no memory to compare the arguments");
    for (int i = 0; i < fx_flag_count; i++) {
        char number[64];
        fputs(o->given >> i & 1 ? fx_flag_text(o, &fx_flags[i], number, sizeof number) : "", to);
        fputc(0, to);
    }
    FX_CHECK(!fclose(to), FX_ENOMEM, "no memory to compare the arguments");
    return FX_OK;
}

static fx_status name_argument(fx_run *s, const texts *mine)
{
    texts first = {NULL, 0};
    const char *a, *b;
    int i;
    fx_status st = list_of_first(s, mine, &first);
    if (st == FX_OK && difference(mine, &first, &i, &a, &b))
        st = FX_FAIL(FX_EINVAL,
                     "this rank has --%s '%.100s' and rank 0 has '%.100s'; all ranks need the same "
                     "arguments; start them with one command line",
                     i < fx_flag_count ? fx_flags[i].name : "?", a, b);
    free(first.list);
    return fx_run_vote(s, st);
}

static int count_nodes(const fx_run *s, const card *cards)
{
    int nodes = 1;
    for (int r = 1; r < s->ranks; r++) {
        bool seen = false;
        for (int q = 0; q < r; q++) seen |= !strcmp(cards[q].host, cards[r].host);
        nodes += !seen;
    }
    return nodes;
}

fx_status fx_agree_program(fx_run *s, const fx_options *o)
{
    texts mine = {NULL, 0};
    card own = {.version = ""}, *cards = NULL;
    char build[20] = "";
    fx_status st = fx_run_vote(s, argument_list(o, &mine));
    if (st != FX_OK) goto out;
    dl_iterate_phdr(find_build, build);
    snprintf(own.version, sizeof own.version, "%s (build %s)", FX_VERSION, build[0] ? build : "unknown");
    snprintf(own.host, sizeof own.host, "%s", fx_talk_host());
    own.list = fnv(FNV_START, mine.list, mine.size);
    FX_TRY_OUT(exchange_cards(s, &own, &cards));
    s->nodes = count_nodes(s, cards);
    if (strcmp(own.version, cards[0].version))
        st = FX_FAIL(FX_EINVAL,
                     "this rank runs fluxpar %s and rank 0 (%s) runs %s; all ranks need the same version; "
                     "install one on all nodes",
                     own.version, cards[0].host, cards[0].version);
    FX_TRY_OUT(fx_run_vote(s, st));
    if (!equal_lists(s, cards)) st = name_argument(s, &mine);
out:
    free(mine.list);
    free(cards);
    return st;
}

/* ---- model files ---- */

enum { HEADER_MOST = 64 << 20, SMALL_MOST = 32 << 20 };

static bool ends_with(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);
    return n > m && !strcmp(name + n - m, end);
}

/* The header of a safetensors file (its length and so many bytes), or a small file whole. */
static uint64_t hash_start(int fd, const char *name, uint64_t size)
{
    char chunk[1 << 16];
    uint64_t hash = FNV_START, most = size < SMALL_MOST ? size : SMALL_MOST, length = 0;
    if (ends_with(name, ".safetensors")) {
        if (pread(fd, &length, sizeof length, 0) != (ssize_t)sizeof length) return hash;
        most = length < HEADER_MOST ? length + sizeof length : HEADER_MOST;
    }
    for (uint64_t at = 0; at < most;) {
        const size_t want = most - at < sizeof chunk ? (size_t)(most - at) : sizeof chunk;
        const ssize_t got = pread(fd, chunk, want, (off_t)at);
        if (got <= 0) break;
        hash = fnv(hash, chunk, (size_t)got);
        at += (uint64_t)got;
    }
    return hash;
}

static bool model_file(const char *name)
{
    return name[0] != '.' && (ends_with(name, ".safetensors") || ends_with(name, ".json") ||
                              ends_with(name, ".txt") || ends_with(name, ".model"));
}

/* One text: name, size, hash. A file that cannot be read says so; what it means is for the loader. */
static void describe_file(FILE *to, const char *path, const char *name)
{
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && !fstat(fd, &info) && S_ISREG(info.st_mode))
        fprintf(to, "%s of %lld bytes, header hash %016llx", name, (long long)info.st_size,
                (unsigned long long)hash_start(fd, name, (uint64_t)info.st_size));
    else
        fprintf(to, "%s that cannot be read", name);
    fputc(0, to);
    if (fd >= 0) close(fd);
}

/* A folder and its folders, in the order of names. */
static void describe_folder(FILE *to, const char *path, const char *below, int depth)
{
    struct dirent **names;
    const int n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char full[4096], name[1024];
        struct stat info;
        const char *base = names[i]->d_name;
        const int a = snprintf(full, sizeof full, "%s/%s", path, base);
        const int b = snprintf(name, sizeof name, "%s%s%s", below, *below ? "/" : "", base);
        const bool fits = a < (int)sizeof full && b < (int)sizeof name && base[0] != '.';
        if (fits && !stat(full, &info) && S_ISDIR(info.st_mode)) {
            if (depth) describe_folder(to, full, name, depth - 1);
        } else if (fits && model_file(base))
            describe_file(to, full, name);
        free(names[i]);
    }
    if (n >= 0) free(names);
}

static fx_status file_list(const char *model, texts *out)
{
    struct stat info;
    FILE *to = open_memstream(&out->list, &out->size);
    FX_CHECK(to, FX_ENOMEM, "no memory to compare the model files");
    if (!stat(model, &info) && S_ISREG(info.st_mode))
        describe_file(to, model, model);
    else
        describe_folder(to, model, "", 1);
    FX_CHECK(!fclose(to), FX_ENOMEM, "no memory to compare the model files");
    return FX_OK;
}

static fx_status name_file(fx_run *s, const char *model, const texts *mine)
{
    texts first = {NULL, 0};
    const char *a, *b;
    int i;
    fx_status st = list_of_first(s, mine, &first);
    if (st == FX_OK && difference(mine, &first, &i, &a, &b))
        st =
            FX_FAIL(FX_EFORMAT,
                    "model %s differs between the ranks; this rank has %s, rank 0 has %s; put the same files "
                    "on all nodes",
                    model, *a ? a : "no more files", *b ? b : "no more files");
    free(first.list);
    return fx_run_vote(s, st);
}

fx_status fx_agree_model(fx_run *s, const char *model)
{
    texts mine = {NULL, 0};
    card own = {.version = ""}, *cards = NULL;
    if (s->ranks == 1 || !strncmp(model, "synthetic:", 10)) return FX_OK;
    fx_status st = fx_run_vote(s, file_list(model, &mine));
    if (st != FX_OK) goto out;
    own.list = fnv(FNV_START, mine.list, mine.size);
    FX_TRY_OUT(exchange_cards(s, &own, &cards));
    if (!equal_lists(s, cards)) st = name_file(s, model, &mine);
out:
    free(mine.list);
    free(cards);
    return st;
}
