# SPDX-License-Identifier: GPL-2.0-or-later
"""Manual pages of the tools alone, by sphinx-build -b man -c here docs/tools OUT."""
project = "ivshmem"
master_doc = "ivshmem-server"
man_pages = [
    ("ivshmem-client", "ivshmem-client", "client for QEMU inter-VM shared memory", [], 1),
    ("ivshmem-guest", "ivshmem-guest", "inter-VM shared memory from inside a guest", [], 1),
    ("ivshmem-server", "ivshmem-server", "server for QEMU inter-VM shared memory", [], 1),
]


def setup(app):
    """Each page stands alone: ":orphan:" says that no table of contents is missing."""
    def mark(_, name, source):
        source[0] = ":orphan:\n\n" + source[0]
    app.connect("source-read", mark)
