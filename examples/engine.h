/* SPDX-License-Identifier: MIT
 *
 * An inference engine as an example sees it: llama.cpp (engine_llama.c), or where that is not installed
 * a stand-in (engine_stand_in.c) with the few names of it that a callback needs.
 */
#ifndef ENGINE_H
#define ENGINE_H

#ifdef HAVE_LLAMA
#include <llama.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
enum { GGML_TYPE_F32 = 0 };
struct ggml_tensor {
    int type;
    int64_t ne[4]; /* elements along each dimension; ne[0] is the innermost */
    char name[64];
    void *data;
};
size_t ggml_nbytes(const struct ggml_tensor *t);
void ggml_backend_tensor_get(const struct ggml_tensor *t, void *data, size_t offset, size_t size);
typedef bool (*ggml_backend_sched_eval_callback)(struct ggml_tensor *t, bool ask, void *user_data);
#endif

/* Runs texts through a model, calling cb for each tensor of each graph: with ask = true, "do you want
 * this one when it is computed?", and if so with ask = false when it is; false then ends the run.
 * Arguments of the program: MODEL.gguf, a file of text with one prompt a line, threads (stand-in: none).
 * Returns 0, or -1 after saying why on stderr. */
int engine_run(int argc, char **argv, ggml_backend_sched_eval_callback cb, void *user_data);

#endif
