/* SPDX-License-Identifier: MIT
 *
 * bench_panels: the products that may propose latents (lib/kernels/panels.h), on one thread and with packing:
 * billions of multiplications and additions a second, so as to compare with the GFLOP/s of fp32.
 */
#include "kernels/panels.h"
#include "worker.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 256, LATENTS = 4096, D = 768, TIMES = 5 };

static ams_panels make(uint64_t n)
{
    return (ams_panels){bench_alloc(ams_panel_size(n, D), sizeof(uint16_t)), bench_alloc(ams_panel_rows(n), sizeof(float)),
                        bench_alloc(n, sizeof(float))};
}

static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = ((float)(i * 2654435761u & 0xffff) - 32768) * 1e-4f;
}

int main(void)
{
    const size_t n_x = (size_t)N * D, n_w = (size_t)LATENTS * D;
    float *x = bench_alloc(n_x, sizeof *x), *w = bench_alloc(n_w, sizeof *w), *c = bench_alloc((size_t)N * LATENTS, sizeof *c);
    fill(x, n_x);
    fill(w, n_w);
    const ams_panels a = make(N), b = make(LATENTS);
    printf("products with 16-bit inputs, 1 thread:");
    const ams_product *const products[] = {ams_product_find(AMS_INT16_AVX2), ams_product_find(AMS_INT16_VNNI), ams_product_request_amx()};
    for (size_t p = 0; p < sizeof products / sizeof *products; p++) {
        const ams_product *product = products[p];
        double best = 0;
        for (int i = 0; product && i < TIMES; i++) {
            const double t = bench_now();
            ams_pack_b(product, &b, w, D, NULL, LATENTS, D);
            for (int rows = 0; rows < 4; rows++) { /* as many rows to a packing as in a small step */
                ams_pack_a(product, &a, x, D, NULL, N, D);
                ams_panels_multiply(product, N, LATENTS, D, &a, &b, c, LATENTS);
            }
            best = fmax(best, 4 * 2e-9 * N * LATENTS * D / (bench_now() - t));
        }
        if (product) printf(" %s %.0f%s", ams_product_name(product), best, product == ams_product_fastest() ? " (taken)" : "");
    }
    printf(" Gop/s\n");
    free(x); free(w); free(c);
    free(a.values); free(a.scale); free(a.error); free(b.values); free(b.scale); free(b.error);
    return 0;
}
