"""An OPC UA server that can offer 100,000 readings a second: asyncua's session and subscription handling, with
notifications encoded by numpy. Every publishing interval each monitored item sends one new Double.

The value is a sawtooth 0..99 per tag; every so often one of the first SPIKES tags steps to 1000, for latency.
"""

import argparse
import asyncio
import logging
import struct
import time

import numpy as np
from asyncua import Server, ua
from asyncua.server import internal_subscription, subscription_service

NAMESPACE = "urn:andon:bench"
SPIKE = 1000.0
SPIKES = 20
_EPOCH_1601_NS = 11_644_473_600 * 1_000_000_000
_ITEM = np.dtype([("handle", "<u4"), ("mask", "u1"), ("type", "u1"), ("value", "<f8"), ("source", "<i8")])
_VALUE_AND_SOURCE_TIME, _DOUBLE = 0x05, 11


class LoadSubscription(internal_subscription.InternalSubscription):
    """Publishes all its items each interval as one block of bytes."""

    _items: np.ndarray | None = None
    _cycle = 0
    cycles_per_spike = 1

    def has_published_results(self) -> bool:
        return bool(self.monitored_item_srv._monitored_items)  # noqa: SLF001

    async def publish_results(self, requestdata=None) -> bool:
        if not self.has_published_results():
            return False
        if requestdata is None:
            requestdata = self.pub_request_callback(self.data.SubscriptionId)
            if requestdata is None:
                return False
        processor = self.pub_result_callback.__self__
        body = self._body(requestdata)
        raw = processor._connection.message_to_binary(  # noqa: SLF001
            body, message_type=ua.MessageType.SecureMessage, request_id=requestdata.seqhdr.RequestId
        )
        processor._transport.write(raw)  # noqa: SLF001
        return True

    def _body(self, requestdata) -> bytes:
        handles = [item.client_handle for item in self.monitored_item_srv._monitored_items.values()]  # noqa: SLF001
        if self._items is None or len(self._items) != len(handles):
            self._items = np.zeros(len(handles), _ITEM)
            self._items["handle"] = handles
            self._items["mask"], self._items["type"] = _VALUE_AND_SOURCE_TIME, _DOUBLE
            self._phase = np.arange(len(handles)) % 100
        now = time.time_ns()
        filetime = (now + _EPOCH_1601_NS) // 100
        self._cycle += 1
        items = self._items
        items["value"] = (self._phase + self._cycle) % 100
        items["source"] = filetime
        turn, rest = divmod(self._cycle, self.cycles_per_spike)
        if items["handle"][0] == 0 and rest == 0:
            items["value"][turn % SPIKES] = SPIKE
        payload = struct.pack("<i", len(items)) + items.tobytes() + struct.pack("<i", -1)
        sequence, self._notification_seq = self._notification_seq, self._notification_seq + 1
        results = requestdata.results or []
        return b"".join((
            struct.pack("<BBH", 1, 0, ua.ObjectIds.PublishResponse_Encoding_DefaultBinary),
            struct.pack("<qIIBiBBB", filetime, requestdata.requesthdr.RequestHandle, 0, 0, -1, 0, 0, 0),
            struct.pack("<Ii", self.data.SubscriptionId, 0),
            struct.pack("<BIqi", 0, sequence, filetime, 1),
            struct.pack("<BBHBi", 1, 0, ua.ObjectIds.DataChangeNotification_Encoding_DefaultBinary, 1, len(payload)),
            payload,
            struct.pack("<i", len(results)),
            b"".join(struct.pack("<I", code.value) for code in results),
            struct.pack("<i", -1),
        ))  # fmt: skip


async def serve(port: int, tags: int) -> None:
    """Serve `tags` variables `ns=<bench>;i=1..tags` until cancelled."""
    logging.getLogger("asyncua").setLevel(logging.ERROR)
    subscription_service.InternalSubscription = LoadSubscription
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/bench")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    for i in range(tags):
        if i % 100 == 0:  # the server searches a folder's references at each addition: small folders stay fast
            name = ua.QualifiedName(f"load{i}", index)
            folder = await server.nodes.objects.add_folder(ua.NodeId(100_000_000 + i, index), name)
        await folder.add_variable(ua.NodeId(i + 1, index), ua.QualifiedName(f"t{i}", index), 0.0)
    async with server:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tags", type=int, required=True)
    parser.add_argument("--cycles-per-spike", type=int, default=1)
    arguments = parser.parse_args()
    LoadSubscription.cycles_per_spike = arguments.cycles_per_spike
    asyncio.run(serve(arguments.port, arguments.tags))
