/* SPDX-License-Identifier: MIT
 *
 * atmsae: trains, measures and shows sparse autoencoders with the library's public functions only.
 */
#include "command.h"
#include "program.h"
#include "progress.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const command *const commands[] = {
    &command_train, &command_resume, &command_eval, &command_compare, &command_convert, &command_info, &command_features, &command_synth, &command_bench,
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

const char *const exit_codes[4][2] = {
    {"0", "done"},
    {"1", "failed, after a message that says why"},
    {"2", "an option or a value that is not understood or out of range; nothing was done"},
    {"130", "stopped by Ctrl-C, SIGTERM, SIGHUP, SIGXCPU or SIGUSR1, after saving a checkpoint; without it by a second Ctrl-C or SIGTERM"},
};

static const command *running; /* whose options messages name */

static void print_exit_codes(FILE *out)
{
    fputs("\nexit codes\n", out);
    for (size_t i = 0; i < sizeof exit_codes / sizeof *exit_codes; i++)
        fprintf(out, "  %-4s %s\n", exit_codes[i][0], exit_codes[i][1]);
}

static void print_usage(FILE *out)
{
    fputs("atmsae: sparse autoencoders with Adaptive Temporal Masking\n\nusage: atmsae COMMAND [OPTIONS]\n\n", out);
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(out, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n  atmsae COMMAND --help   what it does, examples, every option with default and range\n"
          "  atmsae --version\n"
          "  atmsae --completion SHELL   for bash, zsh or fish: source <(atmsae --completion bash)\n", out);
    print_exit_codes(out);
}

static const char *command_name(const void *table, size_t i)
{
    return ((const command *const *)table)[i]->name;
}

static const command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}

static int run_command(const command *c, int argc, char **argv)
{
    if (asks_for_help(argc, argv)) {
        fputs(c->help, stdout);
        options_help(stdout, c->options, c->n_options, c->listed);
        print_exit_codes(stdout);
        return EXIT_OK;
    }
    setting *settings = program_alloc(c->n_options + 1, sizeof *settings);
    const bool good = options_parse(c->options, c->n_options, argc, argv, settings) && (!c->complete || c->complete(settings)) &&
                      options_required(c->options, c->n_options, settings);
    running = c;
    const int code = !good                                                                           ? EXIT_USAGE
                     : c->own_paths || paths_allowed(c->options, c->n_options, settings) ? c->run(settings)
                                                                                         : EXIT_FAILED;
    options_free(settings, c->n_options);
    free(settings);
    return code;
}

/* Results that could not be written are a failure, whatever the command thinks. */
static int flushed(int code)
{
    const bool earlier = ferror(stdout) != 0;
    if (earlier) (void)fputc('\n', stdout); /* errno is gone; this fails for the same reason */
    if (fflush(stdout) == 0 && !earlier) return code;
    program_error("standard output: %s", strerror(errno));
    return code == EXIT_OK ? EXIT_FAILED : code;
}

static int unknown_command(const char *word)
{
    const char *near = nearest_name(word, command_name, commands, N_COMMANDS);
    program_error("unknown command %s%s%s%s (atmsae --help lists all)", word, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    return EXIT_USAGE;
}

/* atmsae --man [COMMAND] and --completion SHELL, for packagers. */
static int generate(const char *what, const char *of)
{
    const bool page = strcmp(what, "--man") == 0;
    const command *c = page && of ? find_command(of) : NULL;
    if (page && of && !c) return unknown_command(of);
    if (page) manual_print(stdout, commands, N_COMMANDS, c);
    else if (!of || !completion_print(stdout, commands, N_COMMANDS, of)) {
        program_error("--completion bash, --completion zsh or --completion fish");
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

static int run_program(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    const command *c = find_command(argv[1]);
    if (c) return run_command(c, argc - 2, argv + 2);
    if (strcmp(argv[1], "--version") == 0) {
        printf("atmsae %s\n", atmsae_version_string());
        return EXIT_OK;
    }
    if (asks_for_help(1, argv + 1) || strcmp(argv[1], "help") == 0) {
        c = argc > 2 ? find_command(argv[2]) : NULL;
        if (c) return run_command(c, 1, (char *[]){"--help"});
        print_usage(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--man") == 0 || strcmp(argv[1], "--completion") == 0) return generate(argv[1], argc > 2 ? argv[2] : NULL);
    return unknown_command(argv[1]);
}

/* Started with descriptors 0, 1 or 2 closed, the program's own files would get these numbers, and messages would be
 * written into them. Each is opened on /dev/null the wrong way round, so that using it stays an error. */
static void hold_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        // cppcheck-suppress leakReturnValNotUsed ; it stays open, as fd
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) _exit(EXIT_FAILED);
}

int main(int argc, char **argv)
{
    hold_descriptors();
    /* As errors of the calls they are reported and cleaned up after: the reader of a pipe that went
     * away, and a file at its size limit. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    program_choose_blis_kernels();
    return flushed(run_program(argc, argv));
}

const char *command_error(const atmsae_context *context, char text[MESSAGE_BYTES])
{
    return in_options(running, atmsae_last_error(context), text);
}

int command_failed(const atmsae_context *context)
{
    char text[MESSAGE_BYTES];
    program_error("%s", command_error(context, text));
    return EXIT_FAILED;
}

static void log_warnings(void *opaque, int32_t level, const char *message)
{
    (void)opaque;
    char text[MESSAGE_BYTES];
    program_error("%s%s", level == ATMSAE_LOG_WARNING ? "warning: " : "", in_options(running, message, text));
}

atmsae_context *command_context(const setting *threads, const setting *precision, bool quiet)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    if (threads->given) config.threads = (uint32_t)threads->count;
    if (precision) setting_choice(precision, &config.precision);
    config.log = log_warnings;
    if (quiet) config.log_level = ATMSAE_LOG_WARNING;
    atmsae_context *context;
    const atmsae_status status = atmsae_context_create(&config, &context);
    if (status < 0) program_error("no context: %s", atmsae_status_name(status));
    return status < 0 ? NULL : context;
}
