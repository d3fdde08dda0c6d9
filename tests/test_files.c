/* SPDX-License-Identifier: MIT
 *
 * What the programs share about files and texts of others: examples/common/files.h, text.h and json.h.
 */
#include "handles.h"

#include "files.h"
#include "json.h"
#include "program.h"
#include "text.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *level)
{
    (void)st;
    (void)type;
    (void)level;
    return remove(path);
}

/* Each test has a folder of its own, in which it stands, and stderr in the file err. */
static char folder[64];

static void set_up(void)
{
    strcpy(folder, "/tmp/atmsae-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
    ck_assert_ptr_nonnull(freopen("err", "w", stderr));
    umask(022);
}

static void tear_down(void)
{
    ck_assert_int_eq(chdir("/"), 0);
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
}

static void holds(const char *path, const char *text)
{
    char found[256] = {0};
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s is not there", path);
    ck_assert_uint_lt(fread(found, 1, sizeof found, file), sizeof found);
    fclose(file);
    ck_assert_str_eq(found, text);
}

/* All that was written to stderr since the last time. */
static void said(const char *text)
{
    char found[8192] = {0};
    fflush(stderr);
    FILE *file = fopen("err", "rb");
    ck_assert_uint_lt(fread(found, 1, sizeof found, file), sizeof found);
    fclose(file);
    ck_assert_msg(strstr(found, text) != NULL, "\"%s\" is not in: %s", text, found);
    ck_assert_ptr_nonnull(freopen("err", "w", stderr));
}

static bool write_file(const char *path, bool replace, const char *text)
{
    file_writer out;
    if (!file_begin(&out, path, replace)) return false;
    fputs(text, out.file);
    return file_end(&out, true);
}

static unsigned mode_of(const char *path)
{
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    return info.st_mode & 07777u;
}

static bool is_there(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

START_TEST(new_and_replaced)
{
    ck_assert(write_file("a", false, "one"));
    holds("a", "one");
    ck_assert_uint_eq(mode_of("a"), 0644);
    ck_assert(!write_file("a", false, "two"));
    said("atmsae: a: is there already; --force replaces it");
    holds("a", "one");
    ck_assert_int_eq(chmod("a", 0600), 0);
    ck_assert(write_file("a", true, "two"));
    holds("a", "two");
    ck_assert_uint_eq(mode_of("a"), 0600);
    ck_assert(!is_there(".a.tmp"));
}
END_TEST

/* Until the end the old file stands; a writer that gives up, or cannot write, leaves it. */
START_TEST(old_or_new)
{
    file_writer out;
    put("a", "old");
    ck_assert(file_begin(&out, "a", true));
    fputs("new", out.file);
    fflush(out.file);
    holds("a", "old");
    ck_assert(!file_end(&out, false));
    holds("a", "old");
    ck_assert(!is_there(".a.tmp"));

    signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit = {.rlim_cur = 4096, .rlim_max = RLIM_INFINITY};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert(file_begin(&out, "a", true));
    size_t written = 0;
    for (; written < 1000000 && !ferror(out.file); written++) fputs("some more text\n", out.file);
    ck_assert_uint_lt(written, 2000); /* the loop ended at the error */
    ck_assert(!file_end(&out, true));
    said("a: File too large");
    holds("a", "old");
    ck_assert(!is_there(".a.tmp"));
}
END_TEST

/* Somebody else makes the file while this one is being written. */
START_TEST(came_meanwhile)
{
    file_writer out;
    ck_assert(file_begin(&out, "a", false));
    put("a", "theirs");
    fputs("ours", out.file);
    ck_assert(!file_end(&out, true));
    said("a: File exists");
    holds("a", "theirs");
    ck_assert(!is_there(".a.tmp"));
}
END_TEST

START_TEST(temporary_files)
{
    file_writer out;
    put(".a.tmp", "of one who died");
    ck_assert(write_file("a", false, "one"));
    ck_assert(!is_there(".a.tmp"));
    put("precious", "precious");
    ck_assert_int_eq(symlink("precious", ".a.tmp"), 0);
    ck_assert(!write_file("a", true, "two"));
    holds("precious", "precious");
    holds("a", "one");
    ck_assert_int_eq(unlink(".a.tmp"), 0);
    ck_assert(file_begin(&out, "a", true));
    ck_assert(!write_file("a", true, "of a second writer"));
    said("a: another program is writing it");
    fputs("of the first", out.file);
    ck_assert(file_end(&out, true));
    holds("a", "of the first");
    char name[256];
    memset(name, 'n', 255);
    name[255] = 0;
    ck_assert(write_file(name, false, "long"));
    holds(name, "long");
}
END_TEST

START_TEST(links)
{
    put("a", "one");
    ck_assert_int_eq(symlink("a", "link"), 0);
    ck_assert_int_eq(mkdir("sub", 0755), 0);
    ck_assert_int_eq(symlink("../link", "sub/far"), 0);
    ck_assert(write_file("sub/far", true, "two"));
    holds("a", "two");
    ck_assert_int_eq(symlink("fresh", "dangling"), 0);
    ck_assert(write_file("dangling", false, "three"));
    holds("fresh", "three");
    ck_assert_int_eq(symlink("round", "round"), 0);
    ck_assert(!write_file("round", true, "four"));
    said("Too many levels of symbolic links");
    char text[8];
    ck_assert_int_eq(readlink("sub/far", text, sizeof text), 7);
    ck_assert_int_eq(link("a", "hard"), 0);
    ck_assert(write_file("a", true, "five"));
    holds("hard", "two");
    /* In a folder like /tmp only one's own links count, whatever the system's settings are. */
    if (geteuid() != 0) return;
    ck_assert_int_eq(mkdir("shared", 0777), 0);
    ck_assert_int_eq(chmod("shared", 01777), 0);
    ck_assert_int_eq(symlink("../a", "shared/theirs"), 0);
    ck_assert_int_eq(symlink("../a", "shared/ours"), 0);
    ck_assert_int_eq(lchown("shared/theirs", 65534, 65534), 0);
    ck_assert(write_file("shared/ours", true, "six"));
    ck_assert(!write_file("shared/theirs", true, "seven"));
    said("shared/theirs: Permission denied");
    holds("a", "six");
}
END_TEST

START_TEST(other_kinds)
{
    ck_assert_int_eq(mkdir("sub", 0755), 0);
    static const char *const refused[][2] = {
        {"sub", "is a folder"}, {"sub/", "is a folder"}, {"", "an empty name"}, {"none/a", "No such file"}, {"err/a", "Not a directory"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        for (int replace = 0; replace < 2; replace++) {
            ck_assert(!file_may_write(refused[i][0], replace));
            said(refused[i][1]);
            ck_assert(!write_file(refused[i][0], replace, "x"));
            said(refused[i][1]);
        }
    ck_assert(file_may_write("a", false) && !is_there("a"));
    /* Pipes and devices are written to as they are. */
    ck_assert(write_file("/dev/null", false, "x"));
    ck_assert_int_eq(mkfifo("pipe", 0644), 0);
    ck_assert(!write_file("pipe", false, "x"));
    said("pipe: a pipe that nobody reads");
    const int reader = open("pipe", O_RDONLY | O_NONBLOCK);
    ck_assert(write_file("pipe", false, "through"));
    char got[16] = {0};
    ck_assert_int_eq(read(reader, got, sizeof got), 7);
    ck_assert_str_eq(got, "through");
    close(reader);
    ck_assert(is_there("pipe"));
}
END_TEST

START_TEST(same_file)
{
    put("a", "a");
    put("b", "b");
    ck_assert_int_eq(symlink("a", "link"), 0);
    ck_assert_int_eq(link("a", "hard"), 0);
    ck_assert(file_same("a", "link") && file_same("link", "hard") && file_same("./a", "a"));
    ck_assert(!file_same("a", "b") && !file_same("a", "none") && !file_same("none", "a"));
    ck_assert(file_same("none", "./none") && !file_same("none", "neither"));
    ck_assert_int_eq(symlink("none", "dangling"), 0);
    ck_assert(file_same("none", "dangling") && !file_same("neither", "dangling") && !file_same("no folder/a", "no folder/a"));
}
END_TEST

START_TEST(within_a_folder)
{
    static const char *const made[][2] = {{"../a", "out"}, {"../none", "out to none"}, {"in", "to in"}, {"none", "to none"},
                                           {"round", "round"}, {"../beyond", "folder out"}, {"folder out/none", "through it"}};
    static const char *const inside[] = {"run/in", "run/none", "./run/../run/none", "run/to in", "run/to none", "run", "to run/none"};
    static const char *const outside[] = {"a", "none", "runs", "run/../a", "run/out", "run/out to none", "run/round", "run/folder out/none",
                                          "run/through it", "run/no folder/a", "run/no folder/../a", ""};
    put("a", "a");
    ck_assert(mkdir("run", 0755) == 0 && mkdir("runs", 0755) == 0 && mkdir("beyond", 0755) == 0 && symlink("run", "to run") == 0);
    put("run/in", "a");
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        char link[100];
        snprintf(link, sizeof link, "run/%s", made[i][1]);
        ck_assert_int_eq(symlink(made[i][0], link), 0);
    }
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
        ck_assert_msg(file_within("run", inside[i]) && file_within("to run", inside[i]), "%s", inside[i]);
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        ck_assert_msg(!file_within("run", outside[i]) && !file_within("to run", outside[i]), "%s", outside[i]);
    ck_assert(!file_within("no folder", "no folder/a"));
}
END_TEST

/* ---- reading ------------------------------------------------------------------------------------------------ */

START_TEST(reading)
{
    size_t size;
    put("a", "some\ntext");
    char *text = file_read("a", 9, &size);
    ck_assert_str_eq(text, "some\ntext");
    ck_assert_uint_eq(size, 9);
    free(text);
    ck_assert_ptr_null(file_read("a", 8, &size));
    said("a: 9 bytes, at most 8 are read");
    ck_assert_ptr_null(file_read("none", 8, &size));
    said("none: cannot open: No such file or directory");
    ck_assert_ptr_null(file_read("/dev/zero", 1 << 20, &size));
    said("no regular file");
    ck_assert_ptr_null(file_read(".", 1 << 20, &size));
    said("is a folder");
    ck_assert_int_eq(mkfifo("pipe", 0644), 0);
    ck_assert_ptr_null(file_read("pipe", 1 << 20, &size)); /* and does not wait */
    said("pipe: cannot read: no regular file");
    /* Sparse: much to read, nothing on the disk. It ends at the first zero. */
    ck_assert_int_eq(truncate("a", (off_t)6 << 30), 0);
    ck_assert_ptr_null(file_read("a", (size_t)8 << 30, &size));
    said("bytes of value 0");
}
END_TEST

/* ---- texts ------------------------------------------------------------------------------------------------------ */

START_TEST(escapes)
{
    static const char *const shown[][2] = {
        {"plain \xc3\xa9 \xe2\x86\x92 \xf0\x9f\x98\x80", "plain \xc3\xa9 \xe2\x86\x92 \xf0\x9f\x98\x80"},
        {"\x1b]0;title\x07", "\\x1b]0;title\\x07"},
        {"a\nb\r\t\x7f", "a\\x0ab\\x0d\\x09\\x7f"},
        {"c1 \xc2\x9b" "31m", "c1 \\xc2\\x9b31m"},
        {"latin \xe9, raw c1 \x9b", "latin \\xe9, raw c1 \\x9b"},
        {"\xe2\x80\xae" "turned", "\\xe2\\x80\\xaeturned"},
        {"cut \xe2\x86", "cut \\xe2\\x86"},
        {"\xc0\xaf \xed\xa0\x80", "\\xc0\\xaf \\xed\\xa0\\x80"},
    };
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        char *text = text_shown(shown[i][0]), small[8];
        ck_assert_str_eq(text, shown[i][1]);
        ck_assert_uint_eq(text_escape(shown[i][0], small, sizeof small), strlen(text));
        ck_assert_int_eq(strncmp(small, text, strlen(small)), 0);
        free(text);
    }
    program_error("%s: %s", "\x1b[2J", "no\nline");
    said("atmsae: \\x1b[2J: no\\x0aline\n");
}
END_TEST

/* Any bytes but 0 go through a string of JSON and back; what is written is ASCII where they are no UTF-8. */
START_TEST(json_keeps_bytes)
{
    char text[2 * 255 + 1], back[sizeof text] = {0}, *json = NULL, *out = back;
    size_t size;
    for (int i = 0; i < 255; i++) text[2 * i] = (char)(i + 1), text[2 * i + 1] = i % 3 ? 'x' : (char)(255 - i);
    text[510] = 0;
    FILE *file = program_text_open(&json, &size);
    json_string(file, text);
    program_text_close(file, &json);
    uint32_t code;
    for (const char *at = json; *at;) {
        const size_t n = text_character(at, &code);
        ck_assert_uint_gt(n, 0);
        ck_assert(!text_is_control(code) && code != '<');
        at += n;
    }
    const char *in = json + 1;
    while (*in != '"') {
        if (*in != '\\') *out++ = *in++;
        else ck_assert((in++, json_unescape(&in, &out)));
    }
    ck_assert_str_eq(in, "\"");
    ck_assert_str_eq(back, text);
    free(json);
    static const char *const bad[] = {"ud800", "udc7f", "udd00", "u0000", "u12", "q", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        in = bad[i], out = back;
        ck_assert_msg(!json_unescape(&in, &out), "%s", bad[i]);
    }
    in = "ud83d\\ude00", out = back;
    ck_assert(json_unescape(&in, &out));
    *out = 0;
    ck_assert_str_eq(back, "\xf0\x9f\x98\x80");
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, new_and_replaced);
    tcase_add_test(tests, old_or_new);
    tcase_add_test(tests, came_meanwhile);
    tcase_add_test(tests, temporary_files);
    tcase_add_test(tests, links);
    tcase_add_test(tests, other_kinds);
    tcase_add_test(tests, same_file);
    tcase_add_test(tests, within_a_folder);
    tcase_add_test(tests, reading);
    tcase_add_test(tests, escapes);
    tcase_add_test(tests, json_keeps_bytes);
}

int main(void) { return run_suite("files", add); }
