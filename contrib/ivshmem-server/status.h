/*
 * What the server is doing, for people and for programs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_STATUS_H
#define IVSHMEM_SERVER_STATUS_H

#include "server.h"

/* One JSON document. */
GString *ivshmem_status_json(const IvshmemServer *server);

/* Prometheus' text format. */
GString *ivshmem_status_metrics(const IvshmemServer *server);

/* A table. */
GString *ivshmem_status_text(const IvshmemServer *server);

#endif /* IVSHMEM_SERVER_STATUS_H */
