/* SPDX-License-Identifier: MIT
 *
 * Selection of the first k entries in a total order (Hoare's quickselect, median of three).
 */
#include "kernels.h"

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
