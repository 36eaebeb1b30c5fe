/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_net.c - commands and raw frames for the comparing module and the translator (tests/net/hostile.h)
 */
#include "tests/net/hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	hostile_run(data, size);
	return 0;
}
