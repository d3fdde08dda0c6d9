/* SPDX-License-Identifier: MIT
 *
 * Heapsort: O(n log n) on any input, hostile ones too, without memory of its own.
 */
#include "format/format.h"

#include <string.h>

static void sift_down(char *a, uint64_t root, uint64_t count, size_t size, int (*compare)(const void *, const void *))
{
    char item[32];
    memcpy(item, a + root * size, size);
    for (uint64_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && compare(a + child * size, a + (child + 1) * size) < 0) child++;
        if (compare(item, a + child * size) >= 0) break;
        memcpy(a + root * size, a + child * size, size);
    }
    memcpy(a + root * size, item, size);
}

void ams_sort(void *records, uint64_t count, size_t size, int (*compare)(const void *, const void *))
{
    char *a = records, item[32];
    for (uint64_t root = count / 2; root-- > 0;)
        sift_down(a, root, count, size, compare);
    for (uint64_t last = count; last-- > 1;) {
        memcpy(item, a, size);
        memcpy(a, a + last * size, size);
        memcpy(a + last * size, item, size);
        sift_down(a, 0, last, size, compare);
    }
}
