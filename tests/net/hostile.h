/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hostile.h - drive a cm and a translator with a string of commands and frames nobody vouches for
 */
#ifndef COLO_TESTS_HOSTILE_H
#define COLO_TESTS_HOSTILE_H

#include <stddef.h>
#include <stdint.h>

/* The input: per record one byte of command, two bytes of length, and the frame; with the command's highest
 * bit, what describes a TCP frame (build_described() in hostile.c). Whatever it says, no
 * memory is touched that should not be, bounds hold, and held frames leave or are dropped in the end. */
void hostile_run(const uint8_t *in, size_t len);

#endif
