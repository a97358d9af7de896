# SPDX-License-Identifier: GPL-2.0-or-later
"""aarch64 Linux guests that ring each other over VFIO, with both kinds of interrupt controllers."""
import support
import test_linux_doorbell
import vm


class ArmPair(test_linux_doorbell.PairTests):
    """Two guests in one group; what the classes below differ in is where messages end."""

    kind = vm.ArmVM
    gic = None

    @classmethod
    def boot(cls):
        cls.server = cls.start(support.Server(cls.dir, "-l", "1M", "-n",
                                              str(test_linux_doorbell.VECTORS)))
        cls.a, cls.b = [cls.machine(*vm.doorbell(cls.server.socket, test_linux_doorbell.VECTORS),
                                    name=name, gic=cls.gic) for name in ("A", "B")]


class Gicv2m(ArmPair, vm.LinuxTestCase):
    """GICv2 and its MSI frame: a message's number is known late (D22)."""

    gic = "gic-version=2"


class Its(ArmPair, vm.LinuxTestCase):
    """GICv3 and its ITS"""

    gic = "gic-version=3,its=on"
