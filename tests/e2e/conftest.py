"""Fixtures of the whole gateway. What is slow to start is shared by the tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_peers import Broker, Daemon, SimulatedPlant, Subscriber


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return tmp_path_factory.mktemp(request.module.__name__.removeprefix("test_e2e_"))


@pytest.fixture(scope="module")
def plant(folder: Path) -> Iterator[SimulatedPlant]:
    plant = SimulatedPlant(folder)
    yield plant
    plant.stop()


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[Broker]:
    broker = Broker(folder)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def prepared(folder: Path, plant: SimulatedPlant, broker: Broker) -> Iterator[Daemon]:
    """A daemon that is configured for the plant and not started; whatever runs at the end is stopped."""
    daemon = Daemon(folder, plant.ports, broker.port)
    yield daemon
    daemon.kill()


@pytest.fixture(scope="module")
def daemon(prepared: Daemon) -> Daemon:
    """A gateway that runs and gets data from every tag. A module may override it to change the configuration."""
    prepared.start()
    prepared.wait_alive()
    return prepared


@pytest.fixture
def scada(broker: Broker) -> Iterator[Subscriber]:
    with Subscriber(broker.port) as subscriber:
        yield subscriber
