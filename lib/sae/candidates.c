/* SPDX-License-Identifier: MIT
 *
 * Lists of candidates: kept short by a running cut, and decided by exact values.
 */
#include "sae/candidates.h"

void ams_candidates_rescore(const ams_scorer *s, ams_candidates *l, uint64_t end)
{
    for (; l->next < l->count && l->entries[l->next].latent < end; l->next++) {
        ams_entry e = l->entries[l->next];
        if (l->next + 1 < l->count) ams_prefetch_latent(s, l->entries[l->next + 1].latent);
        e.value = ams_pre_activation(s, e.row, e.latent);
        if (e.value > 0) l->entries[l->exact++] = e;
    }
    if (l->next == l->count) l->count = l->next = l->exact;
}

void ams_candidates_select(const ams_scorer *s, ams_candidates *l)
{
    const uint64_t k = s->k;
    ams_candidates_rescore(s, l, UINT64_MAX);
    if (l->count <= k) return;
    if (l->batch) {
        ams_select(l->entries, l->count, k);
        l->cut = l->entries[k - 1].value;
    } else { /* in place; of equal ones the first */
        for (uint64_t i = 0; i < l->count; i++)
            l->values[i] = l->entries[i].value;
        l->cut = ams_kth(l->values, l->values + l->room, l->count, k);
        uint64_t kept = 0, equal = k;
        for (uint64_t i = 0; i < l->count; i++)
            equal -= l->entries[i].value > l->cut;
        for (uint64_t i = 0; i < l->count; i++) {
            const bool tie = l->entries[i].value == l->cut;
            if (l->entries[i].value > l->cut || (tie && equal > 0)) l->entries[kept++] = l->entries[i];
            equal -= tie && equal > 0;
        }
    }
    l->count = l->exact = l->next = k;
}

void ams_candidates_cut(const ams_scorer *s, ams_candidates *l)
{
    if (l->count <= s->k || l->crowded) return;
    for (uint64_t i = 0; i < l->count; i++) /* k exact values are at least the k-th of these */
        l->values[i] = l->entries[i].value - s->slack[l->entries[i].row];
    l->cut = fmaxf(l->cut, nextafterf(ams_kth(l->values, l->values + l->room, l->count, s->k), -INFINITY));
    uint64_t kept = 0;
    for (uint64_t i = 0; i < l->count; i++) {
        const ams_entry e = l->entries[i];
        l->entries[kept] = e;
        kept += ams_candidates_may_take(e.value, l->cut, s->slack[e.row]);
    }
    l->count = kept;
}

void ams_candidates_trim(const ams_scorer *s, ams_candidates *l)
{
    const uint64_t count = l->count;
    ams_candidates_cut(s, l);
    l->crowded |= l->count > count - count / 4;
    if (l->crowded) ams_candidates_select(s, l);
}

void ams_candidates_push(const ams_scorer *s, ams_candidates *l, ams_entry e)
{
    if (!ams_candidates_may_take(e.value, l->cut, s->slack[e.row])) return;
    l->entries[l->count++] = e;
    if (l->count == l->room) ams_candidates_trim(s, l);
}
