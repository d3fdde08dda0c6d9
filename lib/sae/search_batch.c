/* SPDX-License-Identifier: MIT
 *
 * The k largest of a batch's candidates, on all threads, as rows.
 *
 * Positive floats are ordered as their bits are. So the k-th largest is found from its highest digit to its
 * lowest: how many candidates have which digit is counted, and the digit in which the k-th lies leaves fewer
 * candidates for the next. Where more are equal to the k-th than belong to the k, their (row, latent) is
 * decided on in the same way. What is shared between threads are counts, and rows whose entries are sorted
 * afterwards, so nothing depends on which thread came first.
 */
#include "sae/search.h"

#include <string.h>

enum {
    ENTRIES_A_JOB = 1024,
    COUNTED_A_JOB = 8192, /* a job's own counts are added to all at its end */
    VALUE_DIGITS = 3, POSITION_DIGITS = 6
};

typedef struct pass {
    ams_searching *a;
    ams_candidates *l;  /* l->values: in the order of l->entries; 0 for what is no candidate any more */
    unsigned shift;     /* of the digit that is counted now, */
    uint64_t above;     /* of keys that have these digits above it */
    _Atomic uint64_t positive;
    float kth;
    uint64_t last_key;  /* of the entries equal to the k-th that are taken: their keys are at least this */
} pass;

/* ---- the k-th largest key ---------------------------------------------------------------------------- */

static uint64_t value_key(const pass *a, uint64_t i)
{
    uint32_t bits;
    memcpy(&bits, &a->l->values[i], sizeof bits);
    return bits;
}

/* The first (row, latent) has the largest key; 0: the entry is not equal to the k-th. */
static uint64_t position_key(const pass *a, uint64_t i)
{
    const ams_entry *e = &a->l->entries[i];
    return a->l->values[i] == a->kth ? ~((uint64_t)e->row << 32 | e->latent) : 0;
}

__attribute__((always_inline)) static inline void count_digits(const pass *a, uint64_t job, uint64_t (*key_of)(const pass *, uint64_t))
{
    enum { DIGITS = 1 << AMS_DIGIT };
    uint32_t count[DIGITS] = {0};
    const uint64_t last = ams_min((job + 1) * COUNTED_A_JOB, a->l->count);
    for (uint64_t i = job * COUNTED_A_JOB; i < last; i++) {
        const uint64_t key = key_of(a, i) >> a->shift;
        if (key >> AMS_DIGIT == a->above) count[key % DIGITS]++;
    }
    for (unsigned digit = 0; digit < DIGITS; digit++)
        if (count[digit] > 0) atomic_fetch_add(&a->a->s->digits[digit], count[digit]);
}

static void count_values_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    count_digits(arg, job, value_key);
}

static void count_positions_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    count_digits(arg, job, position_key);
}

typedef struct kth {
    uint64_t key;
    uint64_t within, beyond; /* how many of the keys equal to it belong to the k largest, how many do not */
} kth;

/* The k-th largest key, 1 <= k <= the number of keys. */
static kth kth_key(pass *a, ams_job *count, unsigned digits, uint64_t k)
{
    ams_search *s = a->a->s;
    uint64_t here = 0;
    a->above = 0;
    while (digits-- > 0) {
        a->shift = digits * AMS_DIGIT;
        for (uint64_t digit = 0; digit < 1 << AMS_DIGIT; digit++)
            atomic_store_explicit(&s->digits[digit], 0, memory_order_relaxed);
        ams_parallel(s->ctx, (a->l->count + COUNTED_A_JOB - 1) / COUNTED_A_JOB, count, a);
        uint64_t digit = (1 << AMS_DIGIT) - 1;
        while ((here = atomic_load_explicit(&s->digits[digit], memory_order_relaxed)) < k) {
            k -= here;
            digit--;
        }
        a->above = a->above << AMS_DIGIT | digit;
    }
    return (kth){a->above, k, here - k};
}

static float value_of(kth found)
{
    const uint32_t bits = (uint32_t)found.key;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- exact values ------------------------------------------------------------------------------------ */

static void least_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    const pass *a = arg;
    const uint64_t last = ams_min((job + 1) * ENTRIES_A_JOB, a->l->count);
    for (uint64_t i = job * ENTRIES_A_JOB; i < last; i++) {
        const float least = a->l->entries[i].value - a->a->s->slack[a->l->entries[i].row];
        a->l->values[i] = least > 0 ? least : 0;
    }
}

static bool may_take(const pass *a, uint64_t i)
{
    const ams_entry *e = &a->l->entries[i];
    return ams_candidates_may_take(e->value, a->l->cut, a->a->s->slack[e->row]);
}

static void rescore_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    pass *a = arg;
    const ams_scorer *scorer = &a->a->scorer;
    const uint64_t last = ams_min((job + 1) * ENTRIES_A_JOB, a->l->count);
    uint64_t positive = 0;
    for (uint64_t i = job * ENTRIES_A_JOB; i < last; i++) {
        const ams_entry *e = &a->l->entries[i];
        if (i + 1 < last && may_take(a, i + 1)) ams_prefetch_latent(scorer, e[1].latent);
        const float value = may_take(a, i) ? ams_pre_activation(scorer, e->row, e->latent) : 0;
        a->l->values[i] = value > 0 ? value : 0;
        positive += value > 0;
    }
    atomic_fetch_add(&a->positive, positive);
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

static bool taken(const pass *a, uint64_t i)
{
    return a->l->values[i] > a->kth || (a->l->values[i] == a->kth && position_key(a, i) >= a->last_key);
}

static void count_rows_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    const pass *a = arg;
    const uint64_t last = ams_min((job + 1) * ENTRIES_A_JOB, a->l->count);
    for (uint64_t i = job * ENTRIES_A_JOB; i < last; i++)
        if (taken(a, i)) __atomic_fetch_add(&a->a->s->found[a->l->entries[i].row], 1, __ATOMIC_RELAXED);
}

static void scatter_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    const pass *a = arg;
    const ams_search *s = a->a->s;
    const uint64_t last = ams_min((job + 1) * ENTRIES_A_JOB, a->l->count);
    for (uint64_t i = job * ENTRIES_A_JOB; i < last; i++) {
        if (!taken(a, i)) continue;
        const ams_entry *e = &a->l->entries[i];
        const uint32_t left = __atomic_fetch_sub(&s->found[e->row], 1, __ATOMIC_RELAXED);
        s->by_row[a->a->out->start[e->row + 1] - left] = (ams_entry){a->l->values[i], e->row, e->latent};
    }
}

static void sort_by_latent(ams_entry *e, uint64_t n) /* Shell sort: n is small and nearly ordered */
{
    for (uint64_t gap = n / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (uint64_t i = gap; i < n; i++) {
            ams_entry x = e[i];
            uint64_t j = i;
            for (; j >= gap && x.latent < e[j - gap].latent; j -= gap)
                e[j] = e[j - gap];
            e[j] = x;
        }
}

static void sort_job(void *arg, uint64_t row, unsigned which)
{
    (void)which;
    const pass *a = arg;
    ams_sparse *out = a->a->out;
    uint64_t first = out->start[row], last = out->start[row + 1];
    ams_entry *e = a->a->s->by_row;
    sort_by_latent(e + first, last - first);
    for (uint64_t i = first; i < last; i++) {
        out->latent[i] = e[i].latent;
        out->value[i] = e[i].value;
    }
}

atmsae_status ams_search_batch(ams_searching *searching, bool *found)
{
    ams_search *s = searching->s;
    pass a = {.a = searching, .l = &s->shared};
    const uint64_t k = searching->q->k, jobs = (a.l->count + ENTRIES_A_JOB - 1) / ENTRIES_A_JOB;
    if (a.l->count > k) { /* k exact values are at least the k-th of these */
        ams_parallel(s->ctx, jobs, least_job, &a);
        const float least = value_of(kth_key(&a, count_values_job, VALUE_DIGITS, k));
        a.l->cut = fmaxf(a.l->cut, nextafterf(least, -INFINITY));
    }
    ams_parallel(s->ctx, jobs, rescore_job, &a);
    const uint64_t count = ams_min(k, atomic_load(&a.positive));
    kth last = {0};
    if (count > 0) last = kth_key(&a, count_values_job, VALUE_DIGITS, count);
    a.kth = value_of(last);
    *found = !(searching->guess > 0) || (count == k && a.kth >= searching->guess);
    if (!*found) return ATMSAE_OK;
    s->last_model = searching->m;
    s->last_smallest = a.kth;
    if (last.beyond > 0) /* of the equal ones the first */
        a.last_key = kth_key(&a, count_positions_job, POSITION_DIGITS, last.within).key;
    if (count > 0) ams_parallel(s->ctx, jobs, count_rows_job, &a);
    AMS_TRY(ams_search_start_rows(searching));
    if (count > 0) ams_parallel(s->ctx, jobs, scatter_job, &a);
    ams_parallel(s->ctx, searching->q->n, sort_job, &a);
    return ATMSAE_OK;
}
