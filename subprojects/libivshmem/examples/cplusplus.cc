/*
 * Example: the same API in C++, one object per connection.
 *
 *   cplusplus SOCKET    print our id and the peers, ring everybody once
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <iostream>
#include <memory>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-peer.h"
#include "ivshmem-registry.h"
#include "ivshmem-session.h"

struct PeerDeleter {
    void operator()(IvshmemPeer *peer) const { ivshmem_peer_free(peer); }
};
using Peer = std::unique_ptr<IvshmemPeer, PeerDeleter>;

static int connect(const char *path, Peer &peer)
{
    IvshmemPeer *raw = nullptr;
    int ret = ivshmem_peer_connect(path, &raw);

    peer.reset(raw);
    return ret < 0 ? ret : ivshmem_peer_wait_ready(raw, 5000);
}

int main(int argc, char **argv)
{
    Peer peer;

    if (argc != 2) {
        std::cerr << "usage: cplusplus SOCKET\n";
        return 2;
    }
    int ret = connect(argv[1], peer);

    if (ret < 0) {
        std::cerr << argv[1] << ": " << ivshmem_strerror(ret) << "\n";
        return 1;
    }
    std::cout << "connected as peer " << ivshmem_peer_id(peer.get()) << "\n";
    for (int id = ivshmem_peer_next_id(peer.get(), -1); id >= 0;
         id = ivshmem_peer_next_id(peer.get(), id)) {
        std::cout << "ringing peer " << id << "\n";
        ret |= ivshmem_peer_ring(peer.get(), static_cast<uint16_t>(id), 0);
    }
    return ret < 0;
}
