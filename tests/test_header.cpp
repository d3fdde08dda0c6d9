// SPDX-License-Identifier: MIT
//
// The public header in strict C++11.
#include "test_header.c"
