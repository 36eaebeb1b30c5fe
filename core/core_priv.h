/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * core_priv.h - between the files of the core: core.c (states, start, time), checkpoint.c, pair.c (how a
 * pair comes about and ends: losses, claims, failover, the operator's commands)
 */
#ifndef COLO_CORE_PRIV_H
#define COLO_CORE_PRIV_H

#include "core/core.h"

/* --- core.c --- */

struct core_action *core_act(struct core *c, enum core_action_type type);
void core_enter(struct core *c, enum core_state to);
void core_quit(struct core *c, enum core_state how, int status);

/* --- checkpoint.c --- */

/* primary: has any of the checkpoint under way left for the secondary? */
bool ckpt_may_be_held(const struct core *c);
void ckpt_want(struct core *c, enum core_cause cause, uint64_t now_us);
void ckpt_tick(struct core *c, const struct core_event *e);
uint64_t ckpt_next_tick(const struct core *c);
void ckpt_seeded(struct core *c, const struct core_event *e);
void ckpt_harvested(struct core *c, const struct core_event *e);
void ckpt_held(struct core *c, const struct core_event *e);
void ckpt_applied(struct core *c, const struct core_event *e);
void ckpt_complete(struct core *c, const struct core_event *e);
void ckpt_apply_done(struct core *c, const struct core_event *e);

/* --- pair.c --- */

void pair_lost(struct core *c, const struct core_event *e, enum core_loss loss);
void pair_tick(struct core *c, const struct core_event *e);
/* primary: the peer is there, but this node wants to go on without it */
void pair_leave(struct core *c, const struct core_event *e, enum core_loss why);
/* primary: the peer shall serve */
void pair_give_up(struct core *c, enum core_loss why);
/* secondary: this node cannot be one any more, the primary goes on alone */
void pair_resign(struct core *c, enum core_loss why);
void pair_take_over(struct core *c, const struct core_event *e);
void pair_claim_answer(struct core *c, const struct core_event *e);
void pair_ask_arbiter(struct core *c, uint64_t generation, bool peer_gone);
void pair_up(struct core *c, const struct core_event *e);
void pair_disk_synced(struct core *c, const struct core_event *e);
void pair_handover(struct core *c, const struct core_event *e);
void pair_dismissed(struct core *c, const struct core_event *e);
void pair_taken(struct core *c);
void pair_failover(struct core *c, const struct core_event *e); /* or switchover, by e->type */
void pair_asked(struct core *c, const struct core_event *e);
void pair_pause(struct core *c, const struct core_event *e);
void pair_resume(struct core *c);
void pair_vm_died(struct core *c);
void pair_vm_wedged(struct core *c);
void pair_disk_failed(struct core *c);

#endif
