"""What a bundle's folder holds: ``bundle.json`` as types, its JSON Schema, and the files that it names.

The schema is generated from the types: ``python -m suites.bundle.stored``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from ..base.errors import UserError
from ..base.files import read_json, write_whole
from ..base.lines import Precision, Profile
from ..base.paths import DATA
from ..inputs.weights import sha256
from .tensors import Tensors

SCHEMA = 1
BUNDLE, SCHEMA_NAME = "bundle.json", "bundle.schema.json"
SCHEMA_FILE = DATA / SCHEMA_NAME
INPUTS, STAGES = "inputs.safetensors", "stages.safetensors"
# so that a name with an ending is a file name everywhere
LONGEST_KEY = 200

Key = Annotated[
    str, Meta(pattern="^[A-Za-z0-9._-]+$", description="the tensor's name in its file, fit for a file name")
]
Figures = dict[str, float]  # rmse and max_abs
Shape = list[Annotated[int, Meta(ge=0)]]


class Bound(Struct, forbid_unknown_fields=True):
    """The largest error that is rounding: ``limit = factor x floor``, each for the root mean square and the largest
    error. All are 0 for whole numbers, which must be equal."""

    limit: Figures
    floor: Annotated[
        Figures,
        Meta(description="the reference's rounding here, against itself in float64; at least unit x level"),
    ]
    factor: Annotated[
        Figures,
        Meta(description="safety x excess: how many floors a correct backend was away, times safety"),
    ]


class Tolerance(Struct, forbid_unknown_fields=True):
    """``local``: of a value computed from this bundle's values before it. ``accumulated``: of a value that the port
    computed from the inputs on; absent where one decision may change all."""

    unit: Annotated[
        float, Meta(description="half a unit in the last place of 1, in the type that the value is kept in")
    ]
    local: Bound
    accumulated: Bound | None = None


class Value(Struct, forbid_unknown_fields=True, kw_only=True):
    """One value of one stage, in the order of the walk."""

    name: Annotated[str, Meta(description="the stage's path; with #ENTRY where it is not the stage's main value")]
    key: Key
    stage: str
    entry: Annotated[str, Meta(description="its name among the values that are passed on, such as x or f0")]
    within: Annotated[str, Meta(description="the path of the model that it is inside; empty: the outermost")] = ""
    shape: Shape
    axes: Annotated[list[str], Meta(description="of each axis in order, what it counts")]
    dtype: str
    meaning: str
    rms: float
    peak: float
    exact: Annotated[bool, Meta(description="whole numbers, which must be equal")] = False
    decides: Annotated[bool, Meta(description="chosen, so that the least difference may move a value by a lot")] = False
    ranks: Annotated[bool, Meta(description="which value of the last axis is largest matters")] = False
    reference_wrong: Annotated[str | None, Meta(description="how far the reference itself is from its float64")] = None
    tolerance: Tolerance


class Group(Struct, forbid_unknown_fields=True):
    """A stage that is made of others. Its value is that of its last part."""

    name: str
    key: Key
    value: Annotated[str, Meta(description="the name of its value")]
    first: Annotated[str, Meta(description="the name of the first value inside it")]
    local: Annotated[
        Bound | None, Meta(description="of the whole group, computed from the value before it; absent: not known")
    ] = None


class Array(Struct, forbid_unknown_fields=True):
    """An input of a probe."""

    key: Key
    shape: Shape
    dtype: str
    meaning: str


class Draw(Struct, forbid_unknown_fields=True):
    """Noise, in the order in which it is drawn; in the file of the inputs."""

    key: Key
    index: int
    kind: Literal["normal", "uniform"]
    shape: Shape
    stage: Annotated[str, Meta(description="which draws it")]


class StoredProbe(Struct, forbid_unknown_fields=True, dict=True):
    """One input, and the reference's values on it; ``folder`` holds both files."""

    name: str
    folder: Key
    settings: Annotated[dict[str, Any], Meta(description="of the call, such as threshold or transpose")]
    inputs: list[Array]
    noise: list[Draw]
    values: list[Value]
    groups: list[Group]

    def value(self, name: str) -> Value | None:
        """By its name or key, or those of the group that it ends."""
        return self._named.get(name)

    def group(self, name: str) -> Group | None:
        return next((one for one in self.groups if name in (one.name, one.key)), None)

    @property
    def names(self) -> list[str]:
        return [*(one.name for one in self.values), *(one.name for one in self.groups)]

    @cached_property
    def _named(self) -> dict[str, Value]:
        values = {one.name: one for one in self.values}
        groups = {n: values[one.value] for one in self.groups for n in (one.name, one.key)}
        return groups | {one.key: one for one in self.values} | values


class StoredWeights(Struct, forbid_unknown_fields=True):
    """``file``: where it is in the folder; None: it was not copied, and the checksum tells which file is meant."""

    name: str
    label: str
    original: str
    sha256: str
    bytes: int
    file: str | None


class StoredFile(Struct, forbid_unknown_fields=True):
    path: str
    bytes: int
    sha256: str


class Bundle(Struct, forbid_unknown_fields=True):
    """A model's inputs, and the reference's value at every stage."""

    schema: Annotated[int, Meta(extra_json_schema={"const": SCHEMA})]
    id: Annotated[str, Meta(description="of the inputs and values; a dump may repeat it in the file bundle.id")]
    model: str
    precision: Precision
    profile: Profile
    reference: Annotated[str, Meta(description="the backend that the values are from")]
    device: Annotated[Literal["cpu", "gpu"], Meta(description="where the port runs that the tolerances are for")]
    seed: int
    audio: str
    facts: Annotated[dict[str, Any], Meta(description="of the loaded model")]
    rule: str
    versions: Annotated[dict[str, Any], Meta(description="of the machine and the software that made it")]
    command: str
    weights: list[StoredWeights]
    probes: list[StoredProbe]
    files: list[StoredFile]


class Folder:
    """A bundle's folder.

    Raises ``UserError``: it is not one, is damaged, or of another version."""

    def __init__(self, path: Path) -> None:
        self.path, file = path, path / BUNDLE
        if not file.is_file():
            raise UserError(f"{path}: not a bundle (no {BUNDLE}); python -m suites bundle MODEL {path} makes one")
        try:
            plain = read_json(file.read_bytes())
            schema = plain["schema"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{file}: is damaged") from None
        if schema != SCHEMA:
            raise UserError(f"{file}: version {schema}, this program knows {SCHEMA}")
        try:
            self.about = msgspec.convert(plain, Bundle)
        except msgspec.ValidationError as error:
            raise UserError(f"{file}: is damaged ({error})") from None
        if not self.about.probes:
            raise UserError(f"{file}: is damaged (no probes)")

    def probe(self, name: str) -> StoredProbe | None:
        return next((one for one in self.about.probes if name in (one.name, one.folder)), None)

    def values(self, probe: StoredProbe) -> Tensors:
        return self._tensors(f"{probe.folder}/{STAGES}")

    def inputs(self, probe: StoredProbe) -> Tensors:
        return self._tensors(f"{probe.folder}/{INPUTS}")

    @cache  # noqa: B019  (as long as the folder is judged)
    def _tensors(self, name: str) -> Tensors:
        """A file that is still what was written: a damaged one would accuse the port."""
        path = self.path / name
        known = next((one.sha256 for one in self.about.files if one.path == name), None)
        if not path.is_file() or known is None:
            raise UserError(f"{path}: is missing from the bundle")
        if sha256(path) != known:
            raise UserError(f"{path}: is not what the bundle was made with; its checksum differs")
        try:
            return Tensors(path)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None


def key_of(name: str, taken: Collection[str]) -> str:
    """A name as one that every file system can hold; ``taken``: keys in lower case, which stay distinct there."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("#", "--")).strip("-.")[:LONGEST_KEY] or "value"
    key, number = plain, 1
    while key.lower() in taken:
        number += 1
        key = f"{plain}-{number}"
    return key


def dtype_of(array: np.ndarray) -> str:
    return str(array.dtype.newbyteorder("="))


# ---------------------------------------------------------------------- the JSON Schema
def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``bundle.json``, as this version writes it."""
    (reference,), parts = msgspec.json.schema_components((Bundle,), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{BUNDLE}, schema {SCHEMA}",
        **reference,
        "$defs": parts,
    }


if __name__ == "__main__":
    write_whole(SCHEMA_FILE, json.dumps(json_schema(), indent=2) + "\n")
