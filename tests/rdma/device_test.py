# SPDX-License-Identifier: GPL-2.0
"""What users see of an HCA: ibv_devinfo, the rdma tool, sysfs."""
from rig import rdma
from rig.testlib import Test, case

TWO = "switch:two-hcas"

# Of `ibv_devinfo -v`: what libmlx5 makes of the capabilities that the model reports.
DEVINFO = (
    "PORT_ACTIVE", "link_layer:\t\tInfiniBand", "max_mtu:\t\t4096", "active_mtu:\t\t4096", "vendor_part_id:\t\t\t4119",
    "atomic_cap:\t\t\tATOMIC_HCA (1)", "ODP_SUPPORT", "ODP_SUPPORT_IMPLICIT", "active_width:\t\t4X", "active_speed:\t\t25.0 Gbps",
    "phys_state:\t\tLINK_UP", "fe80:0000:0000:0000:5254:0000:0500:0001",
)
RC_ODP = ("SUPPORT_SEND", "SUPPORT_RECV", "SUPPORT_WRITE", "SUPPORT_READ", "SUPPORT_ATOMIC", "SUPPORT_SRQ")


@case(topology=TWO, timeout=120)
def shown(t: Test) -> None:
    first, second = rdma.load(t.vm)
    info = t.vm.run(["ibv_devinfo", "-v", "-d", first]).stdout
    t.note(info)
    for text in DEVINFO:
        t.check(text in info, f"ibv_devinfo -v says {text!r}")
    rc = info.split("rc_odp_caps:")[1].split("uc_odp_caps:")[0].split()
    t.equal(rc, list(RC_ODP), "rc_odp_caps")
    links = t.vm.run(["rdma", "link"]).stdout
    for name, lid in ((first, 1), (second, 2)):
        wanted = f"link {name}/1 subnet_prefix fe80:0000:0000:0000 lid {lid} sm_lid 0 lmc 0 state ACTIVE physical_state LINK_UP"
        t.check(wanted in links, f"'rdma link' says {wanted!r}, not {links!r}")
    devices = t.vm.run(["rdma", "dev"]).stdout
    t.check(f"{second}: node_type ca protocol ib fw 16.35.4030 node_guid 5254:0000:0500:0002" in devices, f"rdma dev: {devices!r}")
    t.no_guest_errors()


@case(topology=TWO, timeout=120)
def port_counters(t: Test) -> None:
    """Traffic between the two shows in sysfs of both, and agrees with the model's own counters; nothing was lost."""
    first, second = rdma.load(t.vm)

    def count(name: str) -> dict[str, int]:
        text = t.vm.run(f"cd /sys/class/infiniband/{name}/ports/1/counters && grep . port_*").stdout
        return {key: int(value) for key, value in (line.split(":") for line in text.splitlines())}

    before = {name: count(name) for name in (first, second)}
    why = rdma.pair(t, ["ib_write_bw", "-n", "50", "-s", "8192"], server=second, client=first)
    t.equal(why, "", "ib_write_bw")
    moved = {name: {key: value - before[name][key] for key, value in count(name).items()} for name in (first, second)}
    # sysfs counts data in units of 4 bytes. Two packets of 4096 bytes each; the tool warms up with some more.
    sent = moved[first]
    t.check(sent["port_xmit_data"] >= 50 * 8192 // 4, f"port_xmit_data of the sender: {sent}")
    t.check(sent["port_xmit_packets"] >= 100, f"port_xmit_packets of the sender: {sent}")
    t.equal(moved[second]["port_rcv_data"], sent["port_xmit_data"], "port_rcv_data of the receiver")
    t.equal(moved[second]["port_rcv_packets"], sent["port_xmit_packets"], "port_rcv_packets of the receiver")
    t.equal(t.vm.qom_get("importer", "tx-packets"), count(first)["port_xmit_packets"], "tx-packets over QOM")
    for name in ("port_rcv_errors", "port_xmit_discards", "port_xmit_wait"):
        t.equal(count(first)[name], 0, name)
