/* SPDX-License-Identifier: MIT
 *
 * atmsae resume: atmsae train --resume with the settings that lie beside the checkpoint.
 */
#include "program.h"
#include "run_file.h"
#include "run_folder.h"
#include "train.h"

#include <stdlib.h>
#include <unistd.h>

static const char resume_help[] =
    "usage: atmsae resume DIR [OPTIONS]\n\n"
    "Goes on with the run that atmsae train began in DIR, from its last checkpoint, to the same bits as a\n"
    "run without a break. Everything it needs is in DIR/run.json: the files of rows, where metrics go,\n"
    "all settings. Options given here win over it; of those that shape the model and its training only\n"
    "the length and --skip-bad-rows may change, since the run goes on with what it has. A length below what\n"
    "was done ends the run where it is and saves the SAE.\n\n"
    "Metrics and a plot outside of DIR have to be named again here: a file, which may be somebody else's,\n"
    "is no reason to write there.\n\n"
    "examples\n"
    "  atmsae resume out/atm\n"
    "  atmsae resume out/atm --rows 200M\n"
    "  atmsae resume out/atm --input /elsewhere/acts.npy --threads 8\n";

static bool refuse(const char *why)
{
    program_error("%s", why);
    return false;
}

/* Locked first: run.json is then that of the checkpoint. */
static bool read_settings(const char *folder, setting *s)
{
    run_folder locked = {0};
    if (access(folder, F_OK) == 0 && !run_folder_open(&locked, folder, false)) return false;
    const bool there = locked.settings && access(locked.settings, R_OK) == 0;
    if (!there) program_error("%s/" RUN_FILE ": no run to resume here; train --resume --out %s takes all settings as options", folder, folder);
    const bool good = there && options_load(train_options, T_OPTIONS, locked.settings, s);
    run_folder_close(&locked);
    return good;
}

static bool resume_complete(setting *s)
{
    if (s[T_FILES].n != 1) return refuse("resume takes the folder of one run: atmsae resume DIR");
    if (s[T_OPTIONS].given) return refuse("resume has its settings from DIR/" RUN_FILE ": --config goes with train");
    if (s[T_OUT].given || s[T_FORCE].given) return refuse("resume goes on in DIR: --out and --force go with train");
    const char *folder = s[T_FILES].texts[0];
    if (!read_settings(folder, s)) return false;
    s[T_OUT].text = folder; /* it may have been moved */
    s[T_OUT].given = s[T_RESUME].given = true;
    s[T_FORCE].given = false; /* whatever the file says */
    free(s[T_FILES].texts);
    s[T_FILES] = (setting){0};
    return train_outputs_complete(s);
}

static bool may_change(const option *o)
{
    return !o->anew && o != &option_config;
}

const command command_resume = {.name = "resume", .summary = "go on with an interrupted run, or make it longer",
                                .help = resume_help, .options = train_options, .n_options = T_OPTIONS,
                                .listed = may_change, .complete = resume_complete, .own_paths = true, .run = run_train};
