"""The engines that a task can be exported to."""

from __future__ import annotations

from vrft_bench.trainers.export.base import Engine
from vrft_bench.trainers.export.easyr1 import EasyR1
from vrft_bench.trainers.export.llamafactory import LlamaFactory
from vrft_bench.trainers.export.ms_swift import MsSwift
from vrft_bench.trainers.export.openrlhf import OpenRLHF
from vrft_bench.trainers.export.verifiers import Verifiers
from vrft_bench.trainers.export.verl import Verl

_ALL: tuple[Engine, ...] = (Verl(), MsSwift(), EasyR1(), OpenRLHF(), LlamaFactory(), Verifiers())
ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ALL}
