    {
        .name       = "ivshmem",
        .args_type  = "",
        .params     = "",
        .help       = "show the inter-VM shared memory devices",
    },

SRST
  ``info ivshmem``
    Show the inter-VM shared memory devices: memory, server, vectors and peers.
ERST
