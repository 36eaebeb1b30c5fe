/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * view.h - the SVM's RAM as a private, copy-on-write view of the last checkpoint's image
 */
#ifndef COLO_AGENT_VIEW_H
#define COLO_AGENT_VIEW_H

#include "ram.h"
#include "stage.h"

/* VM stopped: move the content of all blocks into images and map views of them in its place. */
int view_create(struct ram *ram, struct errtext *err);
/* Drop every page the VM wrote since; adds their number to *dropped. */
int view_drop(const struct ram *ram, uint64_t *dropped, struct errtext *err);
/* For tests, slow: -EILSEQ if any page is private after all. */
int view_check(const struct ram *ram, struct errtext *err);
/* Write staged pages into the images. The area was checked by stage_open(). Fails only if an image cannot grow. */
int view_apply(const struct ram *ram, struct stage_reader *r, uint64_t *applied, struct errtext *err);

#endif
