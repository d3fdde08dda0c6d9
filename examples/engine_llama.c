/* SPDX-License-Identifier: MIT
 *
 * llama.cpp as an engine: each line of a text file is one prompt, decoded with the callback in place.
 */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 512, MAX_LINE = 4096 };

static int run(struct llama_model *model, FILE *text, struct llama_context_params params)
{
    struct llama_context *ctx = llama_init_from_model(model, params);
    if (!ctx) return -1;
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    char line[MAX_LINE];
    llama_token tokens[MAX_TOKENS];
    int status = 0;
    while (status == 0 && fgets(line, sizeof line, text)) {
        int32_t n = llama_tokenize(vocab, line, (int32_t)strcspn(line, "\n"), tokens, MAX_TOKENS, true, false);
        if (n <= 0) continue; /* empty, or too long for one prompt */
        llama_memory_clear(llama_get_memory(ctx), true);
        status = llama_decode(ctx, llama_batch_get_one(tokens, n));
    }
    llama_free(ctx);
    return status;
}

int engine_run(int argc, char **argv, ggml_backend_sched_eval_callback cb, void *user_data)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL.gguf TEXT.txt [THREADS]\n", argv[0]);
        return -1;
    }
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = MAX_TOKENS;
    if (argc > 3) params.n_threads = params.n_threads_batch = atoi(argv[3]);
    params.cb_eval = cb;
    params.cb_eval_user_data = user_data;

    llama_backend_init();
    FILE *text = fopen(argv[2], "r");
    struct llama_model *model = text ? llama_model_load_from_file(argv[1], llama_model_default_params()) : NULL;
    int status = model ? run(model, text, params) : -1;
    if (!text) perror(argv[2]);
    else if (status != 0) fprintf(stderr, "%s: the engine stopped\n", argv[1]);
    llama_model_free(model);
    if (text) fclose(text);
    llama_backend_free();
    return status ? -1 : 0;
}
