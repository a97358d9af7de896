/*
 * What the system allows the server: open descriptors, and descriptors in
 * flight.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_QUOTA_H
#define IVSHMEM_SERVER_QUOTA_H

/* Raise RLIMIT_NOFILE to the hard limit; returns what it is then. */
unsigned ivshmem_quota_raise(void);

/*
 * How many messages may wait in the socket of one client, given @fd_limit; 0
 * when it does not matter.
 *
 * Linux counts the descriptors that a user has sent and nobody has received
 * yet, and refuses more of them than RLIMIT_NOFILE (ETOOMANYREFS), except to
 * the privileged.  They stay in the socket of a client that does not read, even
 * if we disconnect it.  So each gets a small share beforehand.
 */
unsigned ivshmem_quota_window(unsigned fd_limit);

/* Make the buffer of @sock as large as @window messages; 0 is fine. */
void ivshmem_quota_set_window(int sock, unsigned window);

#endif /* IVSHMEM_SERVER_QUOTA_H */
