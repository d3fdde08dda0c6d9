/* SPDX-License-Identifier: MIT
 *
 * What happens around every public call that computes or changes something: the handles it uses are
 * claimed, so that a second thread or a callback that calls back in gets an error instead of a
 * half-written handle; and the caller's floating-point environment steps aside, so that results do
 * not depend on it.
 */
#include "base/context.h"

#include <unistd.h>

/* users: -1 while a call changes the handle, else the number of calls that read it. */
static bool claim(const ams_claim *c)
{
    int users = atomic_load_explicit(&c->use->users, memory_order_relaxed);
    do
        if (c->changes ? users != 0 : users < 0) return false;
    while (!atomic_compare_exchange_weak_explicit(&c->use->users, &users, c->changes ? -1 : users + 1,
                                                  memory_order_acquire, memory_order_relaxed));
    return true;
}

static void release(ams_call *call)
{
    for (; call->n > 0; call->n--) {
        const ams_claim *c = &call->claims[call->n - 1];
        if (c->changes)
            atomic_store_explicit(&c->use->users, 0, memory_order_release);
        else
            atomic_fetch_sub_explicit(&c->use->users, 1, memory_order_release);
    }
}

bool ams_forked(const atmsae_context *ctx) { return ctx->pid != getpid(); }

atmsae_status ams_call_begin(ams_call *call, atmsae_context *ctx, const char *function)
{
    if (ams_forked(ctx)) /* its worker threads exist in the parent only */
        return ams_fail(ctx, ATMSAE_E_STATE, "%s: the context was made by another process, before fork; make a new one",
                        function);
    for (; call->claims[call->n].use; call->n++)
        if (!claim(&call->claims[call->n]))
            return ams_fail(ctx, ATMSAE_E_STATE,
                            "%s: the %s is in use by another call: of another thread, or the one whose "
                            "callback this is", function, call->claims[call->n].name);
    ams_float_begin(&call->environment);
    call->begun = true;
    return ATMSAE_OK;
}

void ams_call_end(ams_call *call)
{
    if (call->begun) ams_float_end(&call->environment);
    release(call);
}

atmsae_status ams_check_array(atmsae_context *ctx, const char *name, const void *array, size_t element)
{
    if (!array) return ams_fail(ctx, ATMSAE_E_ARG, "%s is NULL", name);
    if ((uintptr_t)array % element == 0) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_ARG, "%s is not aligned to its elements of %zu bytes", name, element);
}

/* Round to nearest, denormals kept, no traps: fesetenv covers MXCSR with its FTZ and DAZ bits. */
void ams_float_begin(fenv_t *caller)
{
    fegetenv(caller);
    fesetenv(FE_DFL_ENV);
}

void ams_float_end(const fenv_t *caller) { fesetenv(caller); }
