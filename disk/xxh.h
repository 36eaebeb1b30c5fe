/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * xxh.h - XXH3 by the widest vector instructions the CPU has: the same values, up to four times as fast
 */
#ifndef COLO_DISK_XXH_H
#define COLO_DISK_XXH_H

#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>
#endif

#endif
