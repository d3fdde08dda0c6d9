/* SPDX-License-Identifier: MIT
 *
 * The options of atmsae train and resume.
 */
#include "train.h"

const char train_help[] =
    "usage: atmsae train FILE... [--out DIR] [OPTIONS]\n\n"
    "Trains a sparse autoencoder on rows of activations and saves it as a SAELens v6 folder: cfg.json\n"
    "and sae_weights.safetensors. The rows may be spread over several files; they are shuffled through\n"
    "a buffer and scaled so that their mean norm is sqrt(d_in). A file name is enough: every setting has\n"
    "a default that follows from the rows.\n\n"
    "Adaptive Temporal Masking (--mask atm, the default) leaves out unimportant latents from some\n"
    "steps, so that the important ones learn to fire on all of their own inputs instead of leaving\n"
    "part of them to a special case. It works with every --arch; nothing is masked in the saved SAE.\n\n"
    "DIR also gets run.json (all settings, resolved; --config takes it and makes the same run again),\n"
    "checkpoint.safetensors and the checkpoint before it, checkpoint.previous.safetensors. The first one is\n"
    "saved before the first step: with --force, what an older run left in DIR stays until then, and its SAE\n"
    "until there is a new one. One run at a time works in DIR.\n\n"
    "What ends a run leaves a checkpoint: Ctrl-C, SIGTERM, SIGHUP, SIGXCPU and SIGUSR1 finish the step, save\n"
    "one and exit with code 130; only a second Ctrl-C or SIGTERM, a second after the message, exits at once.\n"
    "A step that fails, on a bad row or on files that cannot be read, changes nothing: the steps before it are\n"
    "saved, and a run that goes on begins with its rows. atmsae resume DIR, or the same command with --resume,\n"
    "goes on to the same bits as a run without a break, also after a crash; a checkpoint that cannot be read is\n"
    "renamed to .broken, and the one before it used.\n\n"
    "What is there already is replaced with --force only, an input never. All files are opened and checked\n"
    "before the first step.\n\n"
    "Warnings name the usual mistakes and what to do: a run that diverges, k above the rank of the rows or\n"
    "too small, rows that are not centred or of another scale, a few rows of very large norm, too few rows or\n"
    "steps, latents that die, masks that leave out too many, rows of --valid that are not like those of the training.\n\n"
    "examples\n"
    "  atmsae train acts.npy\n"
    "  atmsae train shard-*.safetensors --valid valid.npy --d-sae 16384 --k 32 --rows 100M \\\n"
    "               --out out/atm --metrics out/atm/metrics.csv\n"
    "  atmsae train --config out/atm/run.json --seed 1 --out out/atm1\n"
    "  atmsae train acts.npy --arch jumprelu --target-l0 32 --mask none --out out/jump\n"
    "  atmsae train acts.npy --mask paper --out out/paper\n"
    "  atmsae train mlp-in.npy --target mlp-out.npy --out out/transcoder\n";

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
static const option_choice mask_per_choices[] = {{"step", 0}, {"row", 1}, {0}};
static const option_choice effect_choices[] = {{"hard", ATMSAE_EFFECT_HARD}, {"second-loss", ATMSAE_EFFECT_SECOND_LOSS}, {0}};
static const option_choice norm_choices[] = {{"sqrt-d", ATMSAE_INPUT_SQRT_D}, {"raw", ATMSAE_INPUT_RAW}, {0}};
static const option_choice b_dec_choices[] = {
    {"mean", ATMSAE_B_DEC_MEAN}, {"median", ATMSAE_B_DEC_MEDIAN}, {"zero", ATMSAE_B_DEC_ZERO}, {0},
};

const option train_options[T_OPTIONS] = {
    [T_FILES] = {.group = "files", .kind = OPTION_TEXTS, .file = OPTION_READ, .anew = true, .value = "FILE", .help = "as --input"},
    [T_INPUT] = {.name = "input", .kind = OPTION_TEXTS, .file = OPTION_READ, .required = true, .value = "FILE",
                 .help = "rows to train on: .npy or .safetensors of floats, [.., d_in] each"},
    [T_TENSOR] = {.name = "tensor", .kind = OPTION_TEXT, .value = "NAME", .help = "tensor to read from .safetensors files",
                  .preset = "\"activations\", or the only one of rows"},
    [T_TARGET] = {.name = "target", .kind = OPTION_TEXTS, .file = OPTION_READ, .value = "FILE",
                  .help = "train a transcoder: for each FILE of rows one of what it is to give from them, as many rows in the same "
                          "order; their width is d_out"},
    [T_TARGET_TENSOR] = {.name = "target-tensor", .kind = OPTION_TEXT, .value = "NAME", .help = "tensor to read from --target and --valid-target files",
                         .preset = "as for --tensor"},
    [T_BF16] = {.name = "bf16", .kind = OPTION_FLAG, .help = "16-bit integers in .npy files hold bf16"},
    [T_VALID] = {.name = "valid", .kind = OPTION_TEXTS, .file = OPTION_READ, .value = "FILE",
                 .help = "rows to measure the finished SAE on; not trained on"},
    [T_VALID_TARGET] = {.name = "valid-target", .kind = OPTION_TEXTS, .file = OPTION_READ, .value = "FILE",
                        .help = "of a transcoder: as --target, for --valid"},
    [T_OUT] = {.name = "out", .kind = OPTION_TEXT, .required = true, .anew = true, .value = "DIR", .help = "folder for the SAE, made if need be",
               .preset = "name of the first FILE, without its ending, and -sae"},
    [T_FORCE] = {.anew = true, .name = "force", .kind = OPTION_FLAG, .help = "start anew although DIR holds an SAE or a checkpoint, and replace what --metrics and --plot name"},
    [T_RESUME] = {.anew = true, .name = "resume", .kind = OPTION_FLAG,
                  .help = "go on from DIR/checkpoint.safetensors with its settings; only --rows (or --epochs) and --skip-bad-rows may change"},
    [T_CHECKPOINT] = {.name = "checkpoint-every", .kind = OPTION_COUNT, .value = "ROWS", .min = 0, .preset = "10M",
                      .help = "save a checkpoint every so many rows, besides at the start, on a signal and at the end; 0: only those"},
    [T_METRICS] = {.name = "metrics", .kind = OPTION_TEXT, .file = OPTION_WRITTEN, .value = "FILE", .help = "a line a step, as .csv or .jsonl; in --config a path relative to DIR"},
    [T_PLOT] = {.name = "plot", .kind = OPTION_TEXT, .file = OPTION_WRITTEN, .value = "FILE",
                .help = "picture of importance, threshold and masking over time, as .svg; in --config likewise"},
    [T_QUIET] = {.name = "quiet", .kind = OPTION_FLAG, .help = "no settings and no progress, only warnings and errors"},
    [T_JSON] = {.name = "json", .kind = OPTION_FLAG, .help = "the result as one JSON object on stdout"},
    [T_THREADS] = {.name = "threads", .kind = OPTION_COUNT, .value = "T", .min = 1, .max = 4096, .preset = "one for each CPU that it may use",
                   .help = "threads that compute; the result does not depend on it"},
    [T_PRECISION] = {.name = "precision", .kind = OPTION_CHOICE, .value = "NAME", .choices = precision_choices, .preset = "fp32",
                     .help = "of the product that proposes latents; bf16 is faster on CPUs with AMX, "
                             "and the result does not depend on it"},
    [T_MODEL_NAME] = {.name = "model-name", .kind = OPTION_TEXT, .value = "NAME", .help = "written to cfg.json: the model the rows come from"},
    [T_HOOK_NAME] = {.name = "hook-name", .kind = OPTION_TEXT, .value = "NAME", .help = "written to cfg.json: where in the model"},
    [T_HOOK_NAME_OUT] = {.name = "hook-name-out", .kind = OPTION_TEXT, .value = "NAME", .help = "written to cfg.json, of a transcoder: where its targets come from"},

    [T_ARCH] = {.anew = true, .group = "model", .name = "arch", .kind = OPTION_CHOICE, .value = "NAME", .choices = arch_choices,
                .help = "activation function", .preset = "batchtopk; with --mask paper standard"},
    [T_FORM] = {.anew = true, .name = "jumprelu-form", .kind = OPTION_CHOICE, .value = "NAME", .choices = form_choices,
                .help = "of --arch jumprelu: penalty on L0, or tanh penalty", .preset = "deepmind"},
    [T_D_SAE] = {.anew = true, .name = "d-sae", .kind = OPTION_COUNT, .value = "F", .min = 1, .max = 2147483647, .help = "latents",
                 .preset = "8 d_in; down to d_in for fewer than 20 rows a latent"},
    [T_K] = {.anew = true, .name = "k", .kind = OPTION_REAL, .value = "K", .min = 0, .above_min = true, .preset = "32, at most d_in / 8",
             .help = "active latents a row, of topk (a whole number), batchtopk and matryoshka"},
    [T_PREFIXES] = {.anew = true, .name = "prefixes", .kind = OPTION_COUNTS, .value = "A,B,..", .min = 1,
                    .help = "of matryoshka: widths below d_sae that must reconstruct on their own, increasing",
                    .preset = "F/16,F/8,F/4,F/2"},
    [T_SPARSITY] = {.anew = true, .name = "sparsity", .kind = OPTION_REAL, .value = "L", .min = 0,
                    .help = "weight of the sparsity penalty of standard, jumprelu and gated",
                    .preset = "standard 5, jumprelu 1 (anthropic 10), gated 1"},
    [T_TARGET_L0] = {.anew = true, .name = "target-l0", .kind = OPTION_REAL, .value = "N", .min = 0, .above_min = true,
                     .help = "of standard, jumprelu and gated: start thresholds where N latents a row are active, and move them "
                             "and the weight of the penalty, from --sparsity on, so that it stays N"},
    [T_BANDWIDTH] = {.anew = true, .name = "bandwidth", .kind = OPTION_REAL, .value = "E", .min = 0, .above_min = true,
                     .help = "of jumprelu: width of the kernel that trains the thresholds", .preset = "deepmind 0.5, anthropic 2"},
    [T_INIT_THRESHOLD] = {.anew = true, .name = "init-threshold", .kind = OPTION_REAL, .value = "X", .min = 0, .above_min = true,
                          .help = "of jumprelu: thresholds at the start; they move slowly, so a short run wants "
                                  "them near their end", .preset = "deepmind 0.5, anthropic 0.1"},
    [T_AUX] = {.anew = true, .name = "aux-coef", .kind = OPTION_REAL, .value = "A", .min = 0, .preset = "1/32",
               .help = "weight of AuxK, in which dead latents learn the residual; 0: off"},
    [T_INPUT_NORM] = {.anew = true, .name = "input-norm", .kind = OPTION_CHOICE, .value = "NAME", .choices = norm_choices,
                      .help = "scaling of the rows", .preset = "sqrt-d"},
    [T_B_DEC] = {.anew = true, .name = "b-dec", .kind = OPTION_CHOICE, .value = "NAME", .choices = b_dec_choices,
                 .help = "initial decoder bias, from the data", .preset = "mean"},
    [T_SEED] = {.anew = true, .name = "seed", .kind = OPTION_COUNT, .value = "S", .min = 0, .preset = "0",
                .help = "of the initial weights, the masks and the shuffling"},

    [T_MASK] = {.anew = true, .group = "masking", .name = "mask", .kind = OPTION_CHOICE, .value = "NAME", .choices = mask_choices, .preset = "atm",
                .help = "how latents to be masked are chosen; paper: ATM at a constant rate; uniform and permuted are "
                        "controls that ignore importance"},
    [T_R] = {.anew = true, .name = "r", .kind = OPTION_REAL, .value = "R", .min = 0, .preset = "2; with --mask-effect hard 0.25",
             .help = "masking rate: the least important latents are masked with p = 1 - exp(-r)"},
    [T_C] = {.anew = true, .name = "c", .kind = OPTION_REAL, .value = "C", .min = 0, .preset = "1",
             .help = "threshold theta = mean + c standard deviations of the importances"},
    [T_EFFECT] = {.anew = true, .name = "mask-effect", .kind = OPTION_CHOICE, .value = "NAME", .choices = effect_choices,
                  .preset = "second-loss; with --mask paper hard",
                  .help = "second-loss: masked latents fire as ever, and a second reconstruction without them is added to the loss; "
                          "hard: they cannot fire"},
    [T_ALPHA] = {.anew = true, .name = "alpha", .kind = OPTION_REAL, .value = "A", .min = 0, .preset = "0.3",
                 .help = "weight of the second loss"},
    [T_MASK_PER] = {.anew = true, .name = "mask-per", .kind = OPTION_CHOICE, .value = "NAME", .choices = mask_per_choices,
                    .preset = "row; with --mask-effect hard step", .help = "draw a mask for every row, or one for all rows of a step"},

    [T_ROWS] = {.group = "training", .name = "rows", .kind = OPTION_COUNT, .value = "N", .min = 1,
                .help = "rows to train on in all; the inputs repeat as needed", .preset = "one pass, up to ten while under 2M"},
    [T_EPOCHS] = {.name = "epochs", .kind = OPTION_REAL, .value = "E", .min = 0, .above_min = true,
                  .help = "passes over the inputs, instead of --rows"},
    [T_BATCH] = {.anew = true, .name = "batch", .kind = OPTION_COUNT, .value = "N", .min = 1, .max = 16777216,
                 .preset = "4096, down to 256 for at least 500 steps", .help = "rows a step"},
    [T_LR] = {.anew = true, .name = "lr", .kind = OPTION_REAL, .value = "X", .min = 0, .above_min = true,
              .help = "peak learning rate of Adam; warm-up over the first 5 %, decay over the last 20 %",
              .preset = "2e-4 / sqrt(F / 16384), the law of Gao et al. 2024 with dictionary_learning's constant"},
    [T_DEAD_WINDOW] = {.anew = true, .name = "dead-window", .kind = OPTION_COUNT, .value = "ROWS", .min = 0,
                       .help = "rows without firing after which a latent counts as dead; 0: never",
                       .preset = "10M, at most 10 % of the rows"},
    [T_SHUFFLE] = {.anew = true, .name = "shuffle-rows", .kind = OPTION_COUNT, .value = "ROWS", .min = 0, .preset = "65536",
                   .help = "size of the shuffle buffer; 0: rows in the order of the files"},
    [T_SKIP] = {.name = "skip-bad-rows", .kind = OPTION_COUNT, .value = "N", .min = 0, .preset = "0",
                .help = "rows with a NaN or infinite value that may be left out, counted each time one comes; the next one ends the run"},
    [T_MAX_NORM] = {.anew = true, .name = "max-norm", .kind = OPTION_REAL, .value = "X|auto", .min = 1, .choices = max_norm_choices,
                    .help = "leave out rows whose norm is above X times the median norm of the first rows, --valid's too: attention "
                            "sinks and BOS rows. With --target also those whose target is above X times the targets' median; auto: 10"},
};
