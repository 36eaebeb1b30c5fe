/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * config_priv.h - what the files of the configuration share
 */
#ifndef COLO_CONFIG_PRIV_H
#define COLO_CONFIG_PRIV_H

#include "daemon/config.h"

bool config_parse_mac(const char *text, uint8_t mac[6]); /* false: no unicast address */
/* Fills in what depends on other keys, picks the local host, and judges the whole. tls_said: [tls] mode was given.
 * 0, or -EINVAL with one line in error. */
int config_check(struct config *c, const char *node, bool tls_said, char *error, size_t error_size);

#endif
