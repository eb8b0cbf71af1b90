"""Workers whose rooms are joined, for tests: everything between the sessions is real."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from waiting import until
from workers_of_one_loop import workers


def inet(text):
    return ip_address(text).packed


def addresses_elsewhere(trunk):
    return {address for _, binding in trunk.state.all_elsewhere("default") for address in binding.addresses}


def run(scenario, folder, count=2, **settings):
    async def main():
        async with workers(folder, count, **settings) as started:
            return await scenario(*started)

    return asyncio.run(main())


async def cut(*started):
    """Have workers not hear each other, until each takes the others for gone."""
    for worker in started:
        worker.trunk._unix.send = lambda *_: None
    await until(lambda: all(len(worker.trunk.state.live()) == 1 for worker in started))


def heal(*started):
    for worker in started:
        del worker.trunk._unix.send
