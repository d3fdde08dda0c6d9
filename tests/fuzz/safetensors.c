/* SPDX-License-Identifier: MIT
 *
 * .safetensors: open, and read every tensor.
 */
#include "tensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fz_done(fz_read_tensors(data, size));
    return 0;
}
