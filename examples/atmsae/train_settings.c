/* SPDX-License-Identifier: MIT
 *
 * The options of atmsae train, and what they mean for the library.
 */
#include "train.h"

#include <math.h>
#include <string.h>

const char train_help[] =
    "usage: atmsae train --input FILE... --out DIR [OPTIONS]\n\n"
    "Trains a sparse autoencoder on rows of activations and saves it as a SAELens v6 folder: cfg.json\n"
    "and sae_weights.safetensors. The rows may be spread over several files; they are shuffled through\n"
    "a buffer and scaled so that their mean norm is sqrt(d_in).\n\n"
    "Adaptive Temporal Masking (--mask atm, the default) leaves out unimportant latents from some\n"
    "steps, so that the important ones learn to fire on all of their own inputs instead of leaving\n"
    "part of them to a special case. It works with every --arch; nothing is masked in the saved SAE.\n\n"
    "DIR also gets run.json (all settings, resolved), checkpoint.safetensors and the checkpoint before\n"
    "it, checkpoint.previous.safetensors. Ctrl-C and SIGTERM finish the step, save the checkpoint and\n"
    "exit with code 130; a second signal exits at once. The same command with --resume goes on to the\n"
    "same bits as a run without a break, also after a crash; a checkpoint that is damaged is renamed\n"
    "to .broken, and the one before it used. One run at a time works in DIR.\n\n"
    "examples\n"
    "  atmsae train --input acts.npy --out out/sae\n"
    "  atmsae train --input shard-*.safetensors --valid valid.npy --d-sae 16384 --k 32 --rows 100M \\\n"
    "               --out out/atm --metrics out/atm.csv\n"
    "  atmsae train --input shard-*.safetensors --d-sae 16384 --k 32 --rows 100M --out out/atm --resume\n"
    "  atmsae train --input acts.npy --arch jumprelu --target-l0 32 --mask none --out out/jump\n"
    "  atmsae train --input acts.npy --mask paper --out out/paper\n";

/* Matryoshka is BatchTopK with prefixes. */
enum { ARCH_MATRYOSHKA = 100 };

static const option_choice arch_choices[] = {
    {"standard", ATMSAE_RELU}, {"topk", ATMSAE_TOPK}, {"batchtopk", ATMSAE_BATCHTOPK}, {"jumprelu", ATMSAE_JUMPRELU},
    {"gated", ATMSAE_GATED}, {"matryoshka", ARCH_MATRYOSHKA}, {0},
};
static const option_choice form_choices[] = {
    {"deepmind", ATMSAE_JUMPRELU}, {"anthropic", ATMSAE_JUMPRELU_TANH}, {0},
};
static const option_choice precision_choices[] = {
    {"fp32", ATMSAE_PRECISION_F32}, {"bf16", ATMSAE_PRECISION_BF16}, {0},
};
static const option_choice mask_choices[] = {
    {"atm", ATMSAE_MASK_ATM}, {"paper", ATMSAE_MASK_PAPER}, {"uniform", ATMSAE_MASK_UNIFORM},
    {"permuted", ATMSAE_MASK_PERMUTED}, {"none", ATMSAE_MASK_NONE}, {0},
};
static const option_choice norm_choices[] = {{"sqrt-d", ATMSAE_INPUT_SQRT_D}, {"raw", ATMSAE_INPUT_RAW}, {0}};
static const option_choice b_dec_choices[] = {
    {"mean", ATMSAE_B_DEC_MEAN}, {"median", ATMSAE_B_DEC_MEDIAN}, {"zero", ATMSAE_B_DEC_ZERO}, {0},
};

const option train_options[T_OPTIONS] = {
    [T_INPUT] = {.group = "files", .name = "input", .kind = OPTION_TEXTS, .required = true, .value = "FILE",
                 .help = "rows to train on: .npy (f2, f4) or .safetensors (F16, BF16, F32), [n, d_in] each"},
    [T_TENSOR] = {.name = "tensor", .kind = OPTION_TEXT, .value = "NAME", .help = "tensor to read from .safetensors files",
                  .preset = "the only 2-D float tensor, or \"activations\""},
    [T_BF16] = {.name = "bf16", .kind = OPTION_FLAG, .help = "16-bit integers in .npy files hold bf16"},
    [T_VALID] = {.name = "valid", .kind = OPTION_TEXTS, .value = "FILE",
                 .help = "rows to measure the finished SAE on; not trained on"},
    [T_OUT] = {.name = "out", .kind = OPTION_TEXT, .required = true, .value = "DIR", .help = "folder for the SAE, made if need be"},
    [T_FORCE] = {.name = "force", .kind = OPTION_FLAG, .help = "start anew although DIR holds an SAE or a checkpoint"},
    [T_RESUME] = {.name = "resume", .kind = OPTION_FLAG,
                  .help = "go on from DIR/checkpoint.safetensors with its settings; only --rows (or --epochs) may change"},
    [T_CHECKPOINT] = {.name = "checkpoint-every", .kind = OPTION_COUNT, .value = "ROWS", .min = 0, .preset = "10M",
                      .help = "save a checkpoint every so many rows, besides on a signal and at the end; 0: only those"},
    [T_METRICS] = {.name = "metrics", .kind = OPTION_TEXT, .value = "FILE", .help = "a line a step, as .csv or .jsonl"},
    [T_PLOT] = {.name = "plot", .kind = OPTION_TEXT, .value = "FILE",
                .help = "picture of importance, threshold and masking over time, as .svg"},
    [T_QUIET] = {.name = "quiet", .kind = OPTION_FLAG, .help = "no settings and no progress, only warnings and errors"},
    [T_THREADS] = {.name = "threads", .kind = OPTION_COUNT, .value = "T", .min = 1, .max = 4096, .preset = "one a CPU",
                   .help = "threads that compute; the result does not depend on it"},
    [T_PRECISION] = {.name = "precision", .kind = OPTION_CHOICE, .value = "NAME", .choices = precision_choices, .preset = "fp32",
                     .help = "of the product that proposes latents; bf16 is faster on CPUs with AMX or AVX512-BF16, "
                             "and the result does not depend on it"},
    [T_MODEL_NAME] = {.name = "model-name", .kind = OPTION_TEXT, .value = "NAME", .help = "written to cfg.json: the model the rows come from"},
    [T_HOOK_NAME] = {.name = "hook-name", .kind = OPTION_TEXT, .value = "NAME", .help = "written to cfg.json: where in the model"},

    [T_ARCH] = {.group = "model", .name = "arch", .kind = OPTION_CHOICE, .value = "NAME", .choices = arch_choices,
                .help = "activation function", .preset = "batchtopk; with --mask paper standard"},
    [T_FORM] = {.name = "jumprelu-form", .kind = OPTION_CHOICE, .value = "NAME", .choices = form_choices,
                .help = "of --arch jumprelu: penalty on L0, or tanh penalty", .preset = "deepmind"},
    [T_D_SAE] = {.name = "d-sae", .kind = OPTION_COUNT, .value = "F", .min = 1, .max = 2147483647, .help = "latents",
                 .preset = "8 d_in"},
    [T_K] = {.name = "k", .kind = OPTION_REAL, .value = "K", .min = 0, .above_min = true, .preset = "32",
             .help = "active latents a row, of topk (a whole number), batchtopk and matryoshka"},
    [T_PREFIXES] = {.name = "prefixes", .kind = OPTION_COUNTS, .value = "A,B,..", .min = 1,
                    .help = "of matryoshka: widths below d_sae that must reconstruct on their own, increasing",
                    .preset = "F/16,F/8,F/4,F/2"},
    [T_SPARSITY] = {.name = "sparsity", .kind = OPTION_REAL, .value = "L", .min = 0,
                    .help = "weight of the sparsity penalty of standard, jumprelu and gated",
                    .preset = "standard 5, jumprelu 1 (with --target-l0: d_in; anthropic 10), gated 1"},
    [T_TARGET_L0] = {.name = "target-l0", .kind = OPTION_REAL, .value = "N", .min = 0, .above_min = true,
                     .help = "of jumprelu (deepmind): penalise (L0 / N - 1)^2 instead of L0"},
    [T_BANDWIDTH] = {.name = "bandwidth", .kind = OPTION_REAL, .value = "E", .min = 0, .above_min = true,
                     .help = "of jumprelu: width of the kernel that trains the thresholds", .preset = "deepmind 0.5, anthropic 2"},
    [T_INIT_THRESHOLD] = {.name = "init-threshold", .kind = OPTION_REAL, .value = "X", .min = 0, .above_min = true,
                          .help = "of jumprelu: thresholds at the start; they move slowly, so a short run wants "
                                  "them near their end", .preset = "deepmind 0.5, anthropic 0.1"},
    [T_AUX] = {.name = "aux-coef", .kind = OPTION_REAL, .value = "A", .min = 0, .preset = "1/32",
               .help = "weight of AuxK, in which dead latents learn the residual; 0: off"},
    [T_INPUT_NORM] = {.name = "input-norm", .kind = OPTION_CHOICE, .value = "NAME", .choices = norm_choices,
                      .help = "scaling of the rows", .preset = "sqrt-d"},
    [T_B_DEC] = {.name = "b-dec", .kind = OPTION_CHOICE, .value = "NAME", .choices = b_dec_choices,
                 .help = "initial decoder bias, from the data", .preset = "mean"},
    [T_SEED] = {.name = "seed", .kind = OPTION_COUNT, .value = "S", .min = 0, .preset = "0",
                .help = "of the initial weights, the masks and the shuffling"},

    [T_MASK] = {.group = "masking", .name = "mask", .kind = OPTION_CHOICE, .value = "NAME", .choices = mask_choices, .preset = "atm",
                .help = "which latents a step leaves out; paper: ATM at a constant rate; uniform and permuted are "
                        "controls that ignore importance"},
    [T_R] = {.name = "r", .kind = OPTION_REAL, .value = "R", .min = 0, .preset = "0.25",
             .help = "masking rate: the least important latents are left out with p = 1 - exp(-r)"},
    [T_C] = {.name = "c", .kind = OPTION_REAL, .value = "C", .min = 0, .preset = "1",
             .help = "threshold theta = mean + c standard deviations of the importances"},
    [T_PER_ROW] = {.name = "per-row", .kind = OPTION_FLAG, .help = "draw a mask for every row instead of every step"},

    [T_ROWS] = {.group = "training", .name = "rows", .kind = OPTION_COUNT, .value = "N", .min = 1,
                .help = "rows to train on in all; the inputs repeat as needed", .preset = "--epochs times theirs"},
    [T_EPOCHS] = {.name = "epochs", .kind = OPTION_REAL, .value = "E", .min = 0, .above_min = true, .preset = "1",
                  .help = "passes over the inputs, where --rows is not given"},
    [T_BATCH] = {.name = "batch", .kind = OPTION_COUNT, .value = "N", .min = 1, .max = 16777216, .preset = "4096",
                 .help = "rows a step"},
    [T_LR] = {.name = "lr", .kind = OPTION_REAL, .value = "X", .min = 0, .above_min = true,
              .help = "peak learning rate of Adam; warm-up over the first 5 %, decay over the last 20 %",
              .preset = "2e-4 / sqrt(F / 16384)"},
    [T_DEAD_WINDOW] = {.name = "dead-window", .kind = OPTION_COUNT, .value = "ROWS", .min = 0,
                       .help = "rows without firing after which a latent counts as dead; 0: never",
                       .preset = "10M, at most 10 % of the rows"},
    [T_SHUFFLE] = {.name = "shuffle-rows", .kind = OPTION_COUNT, .value = "ROWS", .min = 0, .preset = "65536",
                   .help = "size of the shuffle buffer; 0: rows in the order of the files"},
};

static bool refuse(const char *message)
{
    fprintf(stderr, "atmsae: %s\n", message);
    return false;
}

/* A quarter of the default widths vanish for tiny SAEs: only those that increase are taken. */
static void default_prefixes(run_config *run)
{
    run->model.prefixes = run->prefixes;
    for (uint64_t part = 16; part >= 2; part /= 2) {
        const uint64_t width = run->model.d_sae / part, n = run->model.n_prefixes;
        if (width > (n ? run->prefixes[n - 1] : 0)) run->prefixes[run->model.n_prefixes++] = width;
    }
}

static bool configure_model(run_config *run, const setting *s, uint64_t d_in)
{
    atmsae_model_config *model = &run->model;
    model->d_in = d_in;
    model->d_sae = 8 * d_in;
    if (s[T_MASK].given && s[T_MASK].choice == ATMSAE_MASK_PAPER) model->activation = ATMSAE_RELU;
    setting_choice(&s[T_ARCH], &model->activation);
    const bool matryoshka = model->activation == ARCH_MATRYOSHKA;
    if (matryoshka) model->activation = ATMSAE_BATCHTOPK;
    if (s[T_FORM].given && model->activation != ATMSAE_JUMPRELU)
        return refuse("--jumprelu-form goes with --arch jumprelu only");
    setting_choice(&s[T_FORM], &model->activation);
    if (s[T_PREFIXES].given && !matryoshka) return refuse("--prefixes goes with --arch matryoshka only");
    const bool top = model->activation == ATMSAE_TOPK || model->activation == ATMSAE_BATCHTOPK;
    if (s[T_K].given && !top) return refuse("--k goes with --arch topk, batchtopk and matryoshka only");
    if (s[T_SPARSITY].given && top) return refuse("--sparsity goes with --arch standard, jumprelu and gated only");
    if (s[T_TARGET_L0].given && model->activation != ATMSAE_JUMPRELU)
        return refuse("--target-l0 goes with --arch jumprelu in its deepmind form only");
    setting_count(&s[T_D_SAE], &model->d_sae);
    setting_count(&s[T_SEED], &model->seed);
    setting_real(&s[T_K], &model->k);
    setting_real(&s[T_TARGET_L0], &model->target_l0);
    /* The squared error of scaled rows is of the order of d_in, so this weight holds L0 near its
     * target whatever the width. */
    if (model->target_l0 > 0) model->sparsity_coef = (double)d_in;
    setting_real(&s[T_SPARSITY], &model->sparsity_coef);
    setting_real(&s[T_BANDWIDTH], &model->bandwidth);
    setting_real(&s[T_INIT_THRESHOLD], &model->init_threshold);
    setting_real(&s[T_AUX], &model->aux_coef);
    setting_choice(&s[T_INPUT_NORM], &model->input_norm);
    setting_choice(&s[T_B_DEC], &model->b_dec_init);
    if (s[T_PREFIXES].given) {
        model->prefixes = s[T_PREFIXES].counts;
        model->n_prefixes = s[T_PREFIXES].n;
    } else if (matryoshka) {
        default_prefixes(run);
    }
    return true;
}

bool train_configure(run_config *run, const setting *s, uint64_t d_in, uint64_t pass_rows)
{
    memset(run, 0, sizeof *run);
    atmsae_model_config_init(&run->model, sizeof run->model);
    atmsae_optimizer_config_init(&run->optimizer, sizeof run->optimizer);
    atmsae_tracker_config_init(&run->tracker, sizeof run->tracker);
    atmsae_masker_config_init(&run->masker, sizeof run->masker);
    atmsae_trainer_config_init(&run->trainer, sizeof run->trainer);
    run->trainer.model = &run->model;
    run->trainer.optimizer = &run->optimizer;
    run->trainer.tracker = &run->tracker;
    run->trainer.masker = &run->masker;
    if (!configure_model(run, s, d_in)) return false;
    setting_real(&s[T_LR], &run->optimizer.lr);
    setting_count(&s[T_DEAD_WINDOW], &run->tracker.dead_window);
    setting_choice(&s[T_MASK], &run->masker.kind);
    setting_real(&s[T_R], &run->masker.r);
    setting_real(&s[T_C], &run->masker.c);
    run->masker.per_row = s[T_PER_ROW].given;
    run->masker.seed = run->model.seed;
    setting_count(&s[T_BATCH], &run->trainer.batch_rows);
    if (s[T_ROWS].given && s[T_EPOCHS].given) return refuse("--rows and --epochs both say how long to train: give one");
    run->trainer.total_rows = s[T_ROWS].given ? s[T_ROWS].count
                                              : (uint64_t)((s[T_EPOCHS].given ? s[T_EPOCHS].real : 1) * (double)pass_rows);
    if (run->trainer.total_rows >= run->trainer.batch_rows) return true;
    fprintf(stderr, "atmsae: %llu rows are less than one step of %llu: lower --batch or raise --rows\n",
            (unsigned long long)run->trainer.total_rows, (unsigned long long)run->trainer.batch_rows);
    return false;
}

bool train_same_settings(const setting *s, const run_config *asked, const atmsae_trainer_config *loaded)
{
    fields want = {0}, have = {0};
    trainer_fields(&want, &asked->trainer);
    trainer_fields(&have, loaded);
    bool same = true;
    for (size_t i = 0; i < T_OPTIONS && same; i++) {
        if (!s[i].given || i == T_ROWS || i == T_EPOCHS) continue;
        const char *a = fields_find(&want, train_options[i].name), *b = fields_find(&have, train_options[i].name);
        same = !a || (b && strcmp(a, b) == 0);
        if (!same)
            fprintf(stderr, "atmsae: --%s is %s, but the run to resume has %s; leave it out to resume, or start "
                    "anew with --force\n", train_options[i].name, a, b ? b : "none");
    }
    fields_free(&want);
    fields_free(&have);
    return same;
}
