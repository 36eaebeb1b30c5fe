/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * show.h - status for people
 */
#ifndef COLO_SHOW_H
#define COLO_SHOW_H

#include <jansson.h>

void show_status(json_t *status);

#endif
