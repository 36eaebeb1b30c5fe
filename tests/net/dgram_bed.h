/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * dgram_bed.h - what the unit tests of datagrams say to the comparing module, in few words
 */
#ifndef COLO_TESTS_DGRAM_BED_H
#define COLO_TESTS_DGRAM_BED_H

#include "cm_bed.h"
#include "dgram_frames.h"

struct cm_stats stats(void);
/* cm_inside.c: no buffer is in use */
bool inside_keeps_nothing(const struct cm *c);
/* the frame of n bytes that was built last */
void give(bool from_pvm, size_t n);
/* with an IP id and TTL of its own for each VM */
void give_ip(bool from_pvm, struct ip_spec s);
void pvm_ip(struct ip_spec s);
void svm_ip(struct ip_spec s);
/* UDP from port G to P; valid until the next */
struct ip_spec udp_spec(const char *text, bool v6);
void pvm_says(const char *text);
void svm_says(const char *text);
/* UDP from P to G */
void request(void);
/* how many left at once, without a checkpoint wanted */
unsigned left(void);
/* after a checkpoint nothing is left behind, no buffer either, nor lost */
void finish(void);

#endif
