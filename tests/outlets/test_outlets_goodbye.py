"""The end of a connection: the broker hears the goodbye, so it does not publish the last will."""

import asyncio

from paho.mqtt.enums import MQTTProtocolVersion

from edge.mqtt.link import Link
from edge.mqtt.wire import Closed, LinkEvent, Message, Opened
from edge.outlets.options import MqttOptions

CONNECT, PUBLISH, DISCONNECT = 0x10, 0x30, 0xE0
CONNACK = b"\x20\x02\x00\x00"


class SlowBroker:
    """Speaks as much MQTT 3.1.1 as it takes, and acknowledges when it is told to. heard: kinds of packets."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.may_acknowledge = asyncio.Event()
        self.over = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting: asyncio.Task[None] | None = None
        while head := await reader.read(1):
            # Every packet here is shorter than 128 bytes, so its length is one byte.
            body = await reader.readexactly((await reader.readexactly(1))[0])
            self.heard.append(head[0] & 0xF0)
            if self.heard[-1] == CONNECT:
                writer.write(CONNACK)
            elif self.heard[-1] == PUBLISH:
                topic = int.from_bytes(body[:2], "big")
                waiting = asyncio.create_task(self._acknowledge(writer, body[2 + topic : 4 + topic]))
        if waiting is not None:
            await waiting
        writer.close()
        self.over.set()

    async def _acknowledge(self, writer: asyncio.StreamWriter, packet: bytes) -> None:
        await self.may_acknowledge.wait()
        writer.write(b"\x40\x02" + packet)


async def test_the_goodbye_waits_for_the_acknowledgement_of_the_last_word():
    """A broker whose acknowledgement meets a closed socket takes the connection for broken."""
    broker, events = SlowBroker(), list[LinkEvent]()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(20):
        port = server.sockets[0].getsockname()[1]
        link = Link(MqttOptions(port=port), "test", MQTTProtocolVersion.MQTTv311, None, events.extend)
        link.start()
        while not any(isinstance(event, Opened) for event in events):
            await asyncio.sleep(0.01)
        link.send([Message("status", b"offline", retain=True)])
        link.goodbye()
        while PUBLISH not in broker.heard:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # long enough for a goodbye that does not wait
        assert broker.heard == [CONNECT, PUBLISH]
        broker.may_acknowledge.set()
        await broker.over.wait()
        assert broker.heard == [CONNECT, PUBLISH, DISCONNECT]
        await link.close()
        assert isinstance(events[-1], Closed)


async def test_a_broker_that_never_acknowledges_is_told_goodbye_all_the_same():
    broker = SlowBroker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(20):
        port = server.sockets[0].getsockname()[1]
        events: list[LinkEvent] = []
        link = Link(MqttOptions(port=port), "test", MQTTProtocolVersion.MQTTv311, None, events.extend)
        link.start()
        while not events:
            await asyncio.sleep(0.01)
        link.send([Message("status", b"offline", retain=True)])
        link.goodbye()
        while DISCONNECT not in broker.heard:
            await asyncio.sleep(0.01)
        broker.may_acknowledge.set()
        await broker.over.wait()
        await link.close()
