/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pagemap_int.h - the two ways to look at the page map; for pagemap.c and pagemap_read.c only
 */
#ifndef COLO_AGENT_PAGEMAP_INT_H
#define COLO_AGENT_PAGEMAP_INT_H

#include "pagemap.h"

/* /proc/self/pagemap, opened once; a negative errno */
int pagemap_fd(struct errtext *err);

/* pagemap_next() by reading one entry for each page */
int pagemap_read_next(struct pagemap_iter *it, struct errtext *err);

#endif
