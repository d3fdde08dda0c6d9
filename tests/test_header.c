/* SPDX-License-Identifier: MIT
 *
 * The public headers on their own, twice, in strict C11; test_header.cpp includes this in C++11.
 */
#include <atmsae/eval.h>
#include <atmsae/eval.h>
#include <atmsae/atmsae.h>

/* A function of each area, so that C++ links what C exports. */
int main(void)
{
    atmsae_context *context = NULL;
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    if (config.size != sizeof config) return 1;
    if (atmsae_context_create(NULL, &context) != ATMSAE_OK) return 2;
    atmsae_context_destroy(context);
    return atmsae_version_number() ==
                   ATMSAE_VERSION_MAJOR * 10000 + ATMSAE_VERSION_MINOR * 100 + ATMSAE_VERSION_PATCH
               ? 0
               : 3;
}
