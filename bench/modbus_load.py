"""A Modbus TCP server that answers read requests from memory: registers hold float32 ABCD values, one sawtooth step a
request cycle; every so many tenths of a second one of the first SPIKES values stands at 1000 for 100 ms.
"""

import argparse
import asyncio
import struct
import time

import numpy as np

SPIKE = 1000.0
SPIKES = 20


class Server(asyncio.Protocol):
    """Answers function codes 3 and 4 of any unit id."""

    cycles_per_spike = 1

    def __init__(self, tags: int) -> None:
        self._values = np.arange(tags, dtype=">f4") % 100
        self._raw = self._values.tobytes()
        self._until = 0.0
        self._rest = b""

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        answers = []
        while len(data) >= 12:
            transaction, _, _, unit, function, start, count = struct.unpack_from(">HHHBBHH", data)
            data = data[12:]
            payload = self._registers()[start * 2 : (start + count) * 2]
            answers.append(
                struct.pack(">HHHBBB", transaction, 0, 3 + len(payload), unit, function, len(payload)) + payload
            )
        self._rest = data
        self._transport.write(b"".join(answers))

    def _registers(self) -> bytes:
        now = time.time()
        if now >= self._until:
            self._until = now + 0.02
            self._values = (self._values + 1) % 100
            spiked = self._values.copy()
            turn, rest = divmod(int(now * 10), self.cycles_per_spike)
            if rest == 0:
                spiked[turn % SPIKES] = SPIKE
            self._raw = spiked.astype(">f4").tobytes()
        return self._raw


async def serve(port: int, tags: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Server(tags), "127.0.0.1", port)
    async with server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tags", type=int, required=True)
    parser.add_argument("--cycles-per-spike", type=int, default=1)
    arguments = parser.parse_args()
    Server.cycles_per_spike = arguments.cycles_per_spike
    asyncio.run(serve(arguments.port, arguments.tags))
