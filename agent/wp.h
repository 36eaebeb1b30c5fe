/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * wp.h - notice writes to guest RAM: userfaultfd write protection
 */
#ifndef COLO_AGENT_WP_H
#define COLO_AGENT_WP_H

#include "pagemap.h"
#include "ram.h"
#include "util.h"

/* Before anything else: "auto" (default), "async" or "sync"; -EINVAL for other words. */
int wp_choose(const char *name);
/* Can this process notice writes, and in which way? 0, or why not. */
int wp_probe(struct errtext *err);
/* "async" or "sync" once it is known, else "auto". */
const char *wp_way(void);

/* Notice writes to all blocks from now on; all are clean. For blocks that are noticed already: clean only. */
int wp_arm(const struct ram *ram, struct errtext *err);
/* The same for blocks that are all views; there only WP_COPIED is asked for, until wp_arm(). */
int wp_arm_view(const struct ram *ram, struct errtext *err);
void wp_disarm(void);
/* Call everything clean. */
int wp_clean(const struct ram *ram, struct errtext *err);

enum wp_list {
	WP_WRITTEN, /* since it was listed, or called clean, the last time; clean again from then on */
	WP_COPIED,  /* of a view: what the VM wrote, and no longer is the image's. Pages may be listed that are
		     * the image's after all */
};

/*
 * List pages, with pagemap.h's iterator. What is written while this runs is in this list or in the next one, if the
 * caller reads a page only after wp_next() has named it.
 */
void wp_begin(struct pagemap_iter *it, enum wp_list list, const struct ram_block *b);
int wp_next(struct pagemap_iter *it, struct errtext *err);

#endif
