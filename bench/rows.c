/* SPDX-License-Identifier: MIT
 *
 * bench_rows: writes the benchmark's rows to standard output, f32 [at least n, d], for the peers.
 */
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    bench_options o = bench_parse(argc, argv);
    atmsae_context *ctx = bench_context(&o);
    size_t count;
    float *x = bench_rows(ctx, o.n, o.d, &count);
    int bad = fwrite(x, o.d * sizeof *x, count, stdout) != count || fflush(stdout) != 0;
    free(x);
    atmsae_context_destroy(ctx);
    return bad;
}
