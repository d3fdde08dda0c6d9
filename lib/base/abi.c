/* SPDX-License-Identifier: MIT
 *
 * See abi.h.
 */
#include "base/base.h"

#include <string.h>

enum { SANE_STRUCT = 4096 };

#define END(type, last) (offsetof(type, last) + sizeof(((type *)NULL)->last))
const ams_struct ams_structs[AMS_N_STRUCTS] = {
#define ROW(type, last) {#type, sizeof(type), END(type, last)},
    AMS_STRUCTS(ROW)
};
/* Without padding behind the last field, bytes that an older program never set are not taken for a new field. */
#define NO_PADDING(type, last) _Static_assert(END(type, last) % _Alignof(type) == 0, #type " ends in padding");
AMS_STRUCTS(NO_PADDING)

atmsae_status ams_struct_check_size(atmsae_context *ctx, const ams_struct *s, const void *caller)
{
    if (!caller) return ams_fail(ctx, ATMSAE_E_ARG, "%s: NULL", s->name);
    const size_t size = *(const size_t *)caller;
    if (size >= s->first && size <= SANE_STRUCT) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_ABI, "%s: size = %zu, expected %zu to %d; call its init function, or set size = sizeof(%s) where it has none",
                    s->name, size, s->first, SANE_STRUCT, s->name);
}

atmsae_status ams_struct_copy_in(atmsae_context *ctx, const ams_struct *s, void *local, const void *caller)
{
    AMS_TRY(ams_struct_check_size(ctx, s, caller));
    const size_t size = *(const size_t *)caller;
    for (size_t i = s->size; i < size; i++)
        if (((const unsigned char *)caller)[i] != 0)
            return ams_fail(ctx, ATMSAE_E_ABI, "%s: byte %zu is set, but this library (%s) knows only %zu bytes", s->name,
                            i, atmsae_version_string(), s->size);
    memcpy(local, caller, size < s->size ? size : s->size);
    *(size_t *)local = s->size;
    return ATMSAE_OK;
}

atmsae_status ams_struct_copy_out(atmsae_context *ctx, const ams_struct *s, void *caller, const void *local)
{
    AMS_TRY(ams_struct_check_size(ctx, s, caller));
    const size_t size = *(const size_t *)caller;
    memcpy((char *)caller + sizeof size, (const char *)local + sizeof size, (size < s->size ? size : s->size) - sizeof size);
    return ATMSAE_OK;
}

void ams_struct_init(void *caller, size_t size, const void *defaults, size_t defaults_size)
{
    if (!caller || size < sizeof size || size > SANE_STRUCT) return;
    memset(caller, 0, size);
    memcpy(caller, defaults, size < defaults_size ? size : defaults_size);
    *(size_t *)caller = size;
}
