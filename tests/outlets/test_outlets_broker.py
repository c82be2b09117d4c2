"""The broker for a plant on one machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from outlets_peers import Plant, Subscriber, mosquitto_or_skip, options, running, until

from edge.broker import AmqttBroker, Broker, MosquittoBroker, embedded, mosquitto_path
from edge.errors import Unreachable


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    if request.param == "mosquitto":
        return MosquittoBroker(mosquitto_or_skip(), tmp_path)
    return AmqttBroker()


async def test_it_takes_a_publish_and_stops_cleanly(broker: Broker) -> None:
    await broker.start()
    try:
        with Subscriber(broker.port, protocol=3) as scada:
            scada.publish("a/b", b"{}", retain=True)
            await scada.until(lambda: scada.on("a/b"))
    finally:
        await broker.stop()
    await broker.stop()
    with pytest.raises(OSError), socket.create_connection((broker.host, broker.port), 1):
        pass


async def test_the_outlet_works_with_it(broker: Broker) -> None:
    await broker.start()
    try:
        async with running(Plant(options(broker.port, protocol=broker.protocol))) as plant:
            with Subscriber(broker.port, protocol=3) as scada:
                await plant.connected()
                plant.step(*(plant.transition(f"a{n}") for n in range(50)))
                plant.commit()
                await plant.sent()
                await scada.until(lambda: len(scada.on("/event")) == 50)
    finally:
        await broker.stop()


async def test_a_broker_that_does_not_know_mqtt_5_is_spoken_to_in_3_1_1() -> None:
    broker = AmqttBroker()
    await broker.start()
    try:
        async with running(Plant(options(broker.port, protocol="auto", connect_timeout_s=0.5))) as plant:
            await plant.connected()
            plant.step(plant.transition("a"))
            plant.commit()
            await plant.sent()
    finally:
        await broker.stop()


async def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(Unreachable, match=str(port)):
            await MosquittoBroker(mosquitto_or_skip(), tmp_path, port).start()
        with pytest.raises(Unreachable, match=str(port)):
            await AmqttBroker(port).start()


async def test_mosquitto_that_dies_at_once_says_why(tmp_path: Path) -> None:
    class Broken(MosquittoBroker):
        def configuration(self) -> str:
            return "no_such_setting 1\n"

    with pytest.raises(Unreachable, match="no_such_setting"):
        await Broken(mosquitto_or_skip(), tmp_path, _free()).start()


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_mosquitto_is_preferred_where_it_is_installed(tmp_path: Path) -> None:
    assert embedded(tmp_path).kind == ("amqtt" if mosquitto_path() is None else "mosquitto")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed (Debian package: util-linux)")
async def test_mosquitto_does_not_outlive_us(tmp_path: Path) -> None:
    mosquitto_or_skip()
    program = (
        "import asyncio, pathlib, sys\n"
        "from edge.broker import embedded\n"
        "async def main():\n"
        "    broker = embedded(pathlib.Path(sys.argv[1]))\n"
        "    await broker.start()\n"
        "    print(broker.port, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
        os.kill(process.pid, signal.SIGKILL)
    await until(lambda: not _accepts(port))


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True
