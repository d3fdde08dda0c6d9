/* SPDX-License-Identifier: MIT
 *
 * Selection of the first k entries in a total order, and of a k-th value (quickselect, median of three).
 */
#include "kernels.h"

#include <math.h>

static void swap(ams_entry *a, ams_entry *b)
{
    ams_entry t = *a;
    *a = *b;
    *b = t;
}

void ams_select(ams_entry *e, uint64_t n, uint64_t k)
{
    uint64_t low = 0, high = n - 1, target = k - 1;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (ams_before(&e[middle], &e[low])) swap(&e[middle], &e[low]);
        if (ams_before(&e[high], &e[low])) swap(&e[high], &e[low]);
        if (ams_before(&e[high], &e[middle])) swap(&e[high], &e[middle]);
        if (high - low < 3) break; /* three or fewer are in order now */
        ams_entry pivot = e[middle];
        uint64_t i = low, j = high;
        while (i <= j) {
            while (ams_before(&e[i], &pivot))
                i++;
            while (ams_before(&pivot, &e[j]))
                j--;
            if (i > j) break;
            swap(&e[i], &e[j]);
            i++;
            j--;
        }
        if (target <= j)
            high = j;
        else if (target >= i)
            low = i;
        else
            break; /* between the parts: the pivot itself */
    }
}

/* Parts are written without branches: which way a value goes nobody can predict. */
float ams_kth(float *v, float *rest, uint64_t n, uint64_t k)
{
    for (;;) {
        const float a = v[0], b = v[n / 2], c = v[n - 1];
        const float pivot = fmaxf(fminf(a, b), fminf(fmaxf(a, b), c));
        uint64_t above = 0, below = 0;
        for (uint64_t i = 0; i < n; i++) {
            const float x = v[i];
            v[above] = x;
            above += x > pivot;
            rest[below] = x;
            below += x < pivot;
        }
        if (k <= above) {
            n = above;
        } else if (k <= n - below) {
            return pivot;
        } else {
            k -= n - below;
            n = below;
            float *const t = v;
            v = rest;
            rest = t;
        }
    }
}
