"""Giving a container its network: namespace, veth pair, address, route and a published port, beside the same by the programs `ip` and
`nft`.

    python benchmarks/network_seat.py [--runs 30]

Run as root. Medians in milliseconds; the ratio is what counts. The programs write the same links and the same nftables elements.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from atoll.config import Instance
from atoll.network import Networks, PortBinding


def run(command: str) -> None:
    subprocess.run(command.split(" "), check=True, capture_output=True)


def by_programs(networks: Networks, instance: Instance, number: int) -> None:
    """What `Networks.create_netns` and `attach` do, one program a step, as shell-based plugins do it."""
    bridge, name = networks.get("bridge"), f"b{instance.id[:6]}{number}"
    address = bridge.gateway.rsplit(".", 1)[0] + f".{200 + number % 50}"
    run(f"ip netns add {name}")
    run(f"ip link add v{name} type veth peer name eth0 netns {name}")
    run(f"ip link set v{name} master {bridge.bridge} up")
    run(f"ip -n {name} link set lo up")
    run(f"ip -n {name} link set eth0 up")
    run(f"ip -n {name} address add {address}/16 dev eth0")
    run(f"ip -n {name} route add default via {bridge.gateway}")
    run(f"nft add element ip atoll_{instance.id} published {{ tcp . {61000 + number} : {address} . 80 }}")
    run(f"nft delete element ip atoll_{instance.id} published {{ tcp . {61000 + number} }}")
    run(f"ip netns delete {name}")


async def measure(runs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="at-", dir="/tmp") as home:
        instance = Instance(Path(home))
        networks = Networks(instance)
        await networks.start()
        ours: dict[str, list[float]] = {"namespace": [], "attach": [], "detach": [], "together": []}
        theirs = []
        try:
            for number in range(runs):
                name = f"c{number}"
                marks = [time.perf_counter()]
                path = await networks.create_netns(name)
                marks.append(time.perf_counter())
                await networks.attach(name, "bridge", netns=path, name=name, ports=[PortBinding(80)])
                marks.append(time.perf_counter())
                await networks.detach_all(name)
                await networks.delete_netns(name)
                marks.append(time.perf_counter())
                steps = [1000 * (after - before) for before, after in itertools.pairwise(marks)]
                for key, value in zip(ours, [*steps, sum(steps)], strict=True):
                    ours[key].append(value)
                started = time.perf_counter()
                by_programs(networks, instance, number)
                theirs.append(1000 * (time.perf_counter() - started))
        finally:
            await networks.destroy()
            await networks.close()
    medians = {key: statistics.median(values) for key, values in ours.items()}
    print("atoll   " + "  ".join(f"{key} {value:.2f} ms" for key, value in medians.items()))
    print(f"ip, nft together {statistics.median(theirs):.2f} ms, {statistics.median(theirs) / medians['together']:.1f} times as long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    asyncio.run(measure(parser.parse_args().runs))


if __name__ == "__main__":
    main()
