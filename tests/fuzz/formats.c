/* SPDX-License-Identifier: MIT
 *
 * SAEs in the archives of others: the input is a .npz or, if its first byte is even, what follows is the
 * pickle of a .pt whose storages are fixed, so that the pickle machine sees more than broken archives.
 * Whole archives are read as tensor files; all that opens is read, and a Gemma Scope that loads encodes.
 */
#include "../archive.h"
#include "tensors.h"

enum { ROOM = sizeof((archive *)0)->bytes };

static atmsae_status read_pickle(const uint8_t *pickle, size_t size)
{
    static const float values[24] = {1, 2, -3};
    static archive a;
    a.n = a.d = a.count = 0;
    add_entry(&a, "r/data.pkl", pickle, size);
    add_entry(&a, "r/data/0", values, 96);
    add_entry(&a, "r/data/1", values, 24);
    end_archive(&a);
    return fz_read_tensors(a.bytes, a.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > ROOM - 4096) return 0;
    if (data[0] % 2 == 0) {
        fz_done(read_pickle(data + 1, size - 1));
        return 0;
    }
    static uint8_t copy[ROOM];
    memcpy(copy, data, size);
    if (size >= 4) memcpy(copy, "PK\3\4", 4); /* chooses the reader; the first entry begins so anyway */
    fz_done(fz_read_tensors(copy, size));
    return 0;
}
