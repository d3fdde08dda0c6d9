/* SPDX-License-Identifier: MIT
 *
 * Structs that cross the ABI carry their size, so that either side may be the older one: fields
 * missing in an older caller's struct keep their defaults, fields of a newer caller's struct are
 * accepted as long as they are zero.
 */
#include "base.h"

#include <string.h>

enum { SANE_STRUCT = 4096 };

static atmsae_status check_size(atmsae_context *ctx, const char *name, size_t size, size_t v1)
{
    if (size >= v1 && size <= SANE_STRUCT) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_ABI, "%s: size = %zu, expected %zu to %d; was it initialised by its init function?",
                    name, size, v1, SANE_STRUCT);
}

atmsae_status ams_struct_check(atmsae_context *ctx, const char *name, const void *caller, size_t v1)
{
    return caller ? check_size(ctx, name, *(const size_t *)caller, v1) : ams_fail(ctx, ATMSAE_E_ARG, "%s: NULL", name);
}

atmsae_status ams_struct_in(atmsae_context *ctx, const char *name, void *local, size_t local_size,
                            size_t v1, const void *caller)
{
    if (!caller) return ams_fail(ctx, ATMSAE_E_ARG, "%s: NULL", name);
    size_t size = *(const size_t *)caller;
    AMS_TRY(check_size(ctx, name, size, v1));
    for (size_t i = local_size; i < size; i++)
        if (((const unsigned char *)caller)[i] != 0)
            return ams_fail(ctx, ATMSAE_E_ABI, "%s: byte %zu is set, but this library (%s) knows only %zu bytes", name,
                            i, atmsae_version_string(), local_size);
    memcpy(local, caller, size < local_size ? size : local_size);
    *(size_t *)local = local_size;
    return ATMSAE_OK;
}

atmsae_status ams_struct_out(atmsae_context *ctx, const char *name, void *caller, const void *local,
                             size_t local_size, size_t v1)
{
    if (!caller) return ams_fail(ctx, ATMSAE_E_ARG, "%s: NULL", name);
    size_t size = *(const size_t *)caller;
    AMS_TRY(check_size(ctx, name, size, v1));
    memcpy((char *)caller + sizeof size, (const char *)local + sizeof size,
           (size < local_size ? size : local_size) - sizeof size);
    return ATMSAE_OK;
}

void ams_struct_init(void *caller, size_t size, const void *defaults, size_t defaults_size)
{
    if (!caller || size < sizeof size || size > SANE_STRUCT) return;
    memset(caller, 0, size);
    memcpy(caller, defaults, size < defaults_size ? size : defaults_size);
    *(size_t *)caller = size;
}
