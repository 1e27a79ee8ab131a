"""JobSpec: one YAML file, one pydantic model. Takes a file, its `base:` files and `--set path=value`; gives a frozen,
validated JobSpec or a SpecError that names the key path as the user typed it. Every verb calls `load_spec`. Imports no Ray,
torch or transformers: a wrong spec fails before any process starts."""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from cluster.config import ClusterConfig
from models.config import ModelConfig, absent
from models.labels import joined
from models.scratch import Shapes
from orchestration.data.config import AUDIO_OPS, IMAGE_OPS, TEXT_OPS, DataConfig, Slug
from orchestration.errors import SpecError
from orchestration.evaluation.config import PromptConfig
from orchestration.features.config import FeaturesConfig
from orchestration.serving.config import ServeConfig
from orchestration.training.config import TrainConfig
from orchestration.tuning.config import TuneConfig

MAX_SPEC_BYTES = 1_000_000


class JobSpec(BaseModel, extra="forbid", frozen=True):
    """One job: a corpus, a model, how to train, search and serve it, and where."""

    name: Slug = Field(description="Names the runs, the registered model and the endpoint.")
    seed: int = Field(0, ge=0, lt=2**63)
    storage: str = Field(
        "eagleray-storage",
        min_length=1,
        description="Folder or fsspec URL that every node reaches: stores, weights, checkpoints, packages, reports.",
    )
    tracking: str | None = Field(None, description="MLflow server or database URI; absent: SQLite under `storage`.")
    tensorboard: bool = Field(
        False,
        description="Also write a run's numbers as TensorBoard events, under runs/<id>/tensorboard of a local storage.",
    )
    wandb: str | None = Field(
        None,
        pattern=r"^[^/\\#?%:]{1,128}$",
        exclude_if=absent,
        description="Also send a run's numbers to this Weights & Biases project; WANDB_API_KEY and WANDB_MODE are read.",
    )
    data: DataConfig
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    tune: TuneConfig | None = None
    prompt: PromptConfig | None = Field(None, description="For the verb `prompt`: a causal model asked, not trained.")
    features: FeaturesConfig | None = Field(None, exclude_if=absent, description="For the verb `embed`.")
    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def outputs(self) -> list[str]:
        """Names of the model's outputs, in order: classes of its task; empty where its outputs are numbers or tokens."""
        named = {"classification": self.data.labels, "tagging": self.data.tags, "heads": joined(self.data.heads)}
        return list(named.get(self.model.task, []))

    @property
    def shapes(self) -> Shapes:
        """What a model from scratch is made for."""
        columns = [len(source.series) for source in self.data.sources if source.series]
        return Shapes(
            positions=self.data.tokenize.max_length,
            image=self.data.image.size,
            rate=self.data.audio.rate,
            columns=max(columns, default=1),
        )

    def dump(self) -> dict[str, Any]:
        """Plain JSON values: what is written beside a run, shipped with a job and hashed."""
        return self.model_dump(mode="json")

    def override(self, values: dict[str, Any]) -> JobSpec:
        """A copy with spec paths changed, validated again. Raises SpecError as `load_spec` does."""
        # without defaults: those of one optimizer are no fields of another that the values may choose
        data = {**self.dump(), "train": self.train.model_dump(mode="json", exclude_defaults=True)}
        for path, value in values.items():
            set_path(data, path, value)
        return validate(data, origin=f"spec {self.name!r} with {', '.join(values)}")


def load_spec(path: str | Path, overrides: Iterable[str] = ()) -> JobSpec:
    """Read, merge, override and validate one spec file; then check it against what lies on disk (`jobs.checks`).

    Raises SpecError naming file, key path, allowed values and the nearest name.
    """
    from jobs.checks import check  # here, so that `jobs.checks` can import JobSpec

    file = Path(path)
    data = _read(file, seen=())
    for item in overrides:
        key, sign, text = item.partition("=")
        if not sign or not key.strip():
            raise SpecError(f"--set {item}: write --set path=value, e.g. --set train.epochs=3")
        value = _parse(text, origin=f"--set {item}")
        holder: dict[str, Any] = {}
        set_path(holder, key.strip(), value)
        _anchor(holder, Path.cwd())
        set_path(data, key.strip(), value if not isinstance(value, str) else _get(holder, key.strip()))
    spec = validate(data, origin=f"spec {file}")
    check(spec, origin=f"spec {file}")
    return spec


def validate(data: Any, origin: str) -> JobSpec:
    """Plain values -> JobSpec. Raises SpecError listing every wrong key at once."""
    if not isinstance(data, dict):
        raise SpecError(
            f"{origin}: a spec is a mapping with the keys {', '.join(JobSpec.model_fields)}; found {_kind(data)}"
        )
    try:
        return JobSpec.model_validate(data, strict=True)
    except ValidationError as error:
        lines = sorted({_explain(item, data) for item in error.errors()})
        raise SpecError("\n".join(f"{origin}: {line}" for line in lines)) from None


# ------------------------------------------------------------------------------------------------ reading and merging


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-5 as a number (YAML 1.1 wants 1.0e-5) and refuses a key given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError(f"{origin}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{origin}: not valid YAML: {error}") from None


def _read(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    real = file.resolve()
    if real in seen:
        raise SpecError(
            f"spec {file}: base: the files refer to each other in a circle: {' -> '.join(str(p) for p in (*seen, real))}"
        )
    if not real.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in _yaml_files(file.parent)], n=1)
        hint = (
            f"; nearest: {file.parent / near[0]}" if near else "; recipes that run as they stand lie in jobs/recipes/"
        )
        raise SpecError(f"spec {file}: no such file{hint}")
    if real.stat().st_size > MAX_SPEC_BYTES:
        raise SpecError(
            f"spec {file}: {real.stat().st_size} bytes; a spec is at most {MAX_SPEC_BYTES}. Is this a data file?"
        )
    try:
        text = real.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"spec {file}: not UTF-8 text (byte {error.start})") from None
    data = _parse(text, origin=f"spec {file}")
    if not isinstance(data, dict):
        raise SpecError(
            f"spec {file}: a spec is a mapping with the keys base, {', '.join(JobSpec.model_fields)}; found {_kind(data)}"
        )
    base = data.pop("base", None)
    _anchor(data, real.parent)
    if base is None:
        return data
    if not isinstance(base, str):
        raise SpecError(f"spec {file}: base: expected the path of another spec file, found {_kind(base)}")
    return _merge(_read(real.parent / base, (*seen, real)), data)


def _yaml_files(folder: Path) -> list[Path]:
    return [*folder.glob("*.yaml"), *folder.glob("*.yml")] if folder.is_dir() else []


def _merge(low: Any, high: Any) -> Any:
    """Mappings merge key by key; anything else, lists too, is replaced."""
    if isinstance(low, dict) and isinstance(high, dict):
        return {
            key: _merge(low[key], high[key]) if key in low and key in high else high.get(key, low.get(key))
            for key in {**low, **high}
        }
    return high


def _anchor(data: dict[str, Any], folder: Path) -> None:
    """Make the relative input paths of one file absolute: they start at the folder of the file that states them."""

    def fix(holder: Any, key: str) -> None:
        if isinstance(holder, dict) and isinstance(holder.get(key), str) and is_local(holder[key]):
            holder[key] = str(folder / Path(holder[key]).expanduser())

    model = data.get("model")
    towers = model.get("towers") if isinstance(model, dict) else None
    for origin in (model, *(towers.values() if isinstance(towers, dict) else ())):
        fix(origin, "path")
        fix(origin, "tokenizer")
    train, part = data.get("train"), data.get("data")
    fix(train.get("distill") if isinstance(train, dict) else None, "teacher")
    for source in part.get("sources") or () if isinstance(part, dict) and isinstance(part.get("sources"), list) else ():
        fix(source, "path")
    fix(part.get("knowledge") if isinstance(part, dict) else None, "path")
    augment = part.get("augment") if isinstance(part, dict) else None
    ops = augment.get("ops") if isinstance(augment, dict) else None
    for op in ops if isinstance(ops, list) else []:
        fix(op, "thesaurus")
        fix(op, "tagger")


def is_local(path: str) -> bool:
    """True for a plain path; false for `catalog:NAME`, `storage:NAME` (an input that lies in storage) and for URLs."""
    return bool(path) and not path.startswith(("catalog:", "storage:", "model:")) and "://" not in path


def set_path(data: dict[str, Any], path: str, value: Any) -> None:
    """`set_path(d, 'a.b[0].c', v)`; list items may be written `b.0` or `b[0]`. Raises SpecError where the path cannot lead on."""
    keys = split_path(path)
    holder: Any = data
    for i, key in enumerate(keys):
        last = i == len(keys) - 1
        if isinstance(holder, list):
            if not key.isdigit() or int(key) >= len(holder):
                raise SpecError(
                    f"{path}: {'.'.join(keys[:i])} is a list of {len(holder)}; use an index from 0 to {len(holder) - 1}"
                )
            key = int(key)  # type: ignore[assignment]
        elif not isinstance(holder, dict):
            raise SpecError(f"{path}: {'.'.join(keys[:i])} is {_kind(holder)} and has no keys")
        if last:
            holder[key] = value  # type: ignore[index]
        elif isinstance(holder, dict) and holder.get(key) is None:
            holder[key] = {}
            holder = holder[key]
        else:
            holder = holder[key]  # type: ignore[index]


def split_path(path: str) -> list[str]:
    return [key for key in re.sub(r"\[(\d+)\]", r".\1", path).split(".") if key]


def _get(data: Any, path: str) -> Any:
    for key in split_path(path):
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


# ------------------------------------------------------------------------------------------------ explaining an error


def _kind(value: Any) -> str:
    names = {
        type(None): "nothing",
        bool: "true/false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    name = names.get(type(value), type(value).__name__)
    return name if value is None or isinstance(value, (list, dict)) else f"{name} ({_short(value)})"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _explain(item: Any, data: Any) -> str:
    """One pydantic error -> `key.path: what is wrong; what is allowed; nearest name`."""
    keys, model = _locate(item["loc"], data)
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".") or "(top level)"
    kind, ctx = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = [field.alias or name for name, field in model.model_fields.items()] if model else []
        nearest = _nearest(str(keys[-1]), path.rpartition(".")[0], allowed)
        return f"{path}: unknown key{nearest}; allowed here: {', '.join(allowed)}"
    if kind == "missing":
        return f"{path}: required and not given{_describe(model, keys)}"
    if kind == "literal_error":
        near = difflib.get_close_matches(str(item["input"]), re.findall(r"'([^']*)'", ctx["expected"]), n=1, cutoff=0.4)
        return (
            f"{path}: found {_kind(item['input'])}; allowed: {ctx['expected']}{f'; nearest: {near[0]}' if near else ''}"
        )
    if kind == "string_pattern_mismatch":
        rule = (
            "lower-case letters, digits, - and _, at most 64"
            if "a-z0-9" in ctx["pattern"]
            else f"text like {ctx['pattern']}"
        )
        return f"{path}: found {_short(item['input'])}; allowed: {rule}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _tagged(path, item["input"], ctx)
    if kind == "value_error":
        return f"{path}: {ctx['error']}"
    found = _unit_hint(item["input"], str(keys[-1]) if keys else "")
    return f"{path}: {item['msg'][0].lower()}{item['msg'][1:]}; found {_kind(item['input'])}{found}{_describe(model, keys)}"


def _tagged(path: str, found: Any, ctx: dict[str, Any]) -> str:
    """A part whose kind a key tells (`op`): that key is missing, or names none."""
    key = str(ctx["discriminator"]).strip("'")
    allowed = [*TEXT_OPS, *IMAGE_OPS, *AUDIO_OPS]  # the one such part: data.augment.ops
    value = found.get(key) if isinstance(found, dict) else found
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.4)
    what = f"found {_kind(value)}" if value is not None else "required and not given"
    return f"{path}.{key}: {what}; allowed: {', '.join(map(repr, allowed))}{f'; nearest: {near[0]}' if near else ''}"


def _unit_hint(value: Any, key: str) -> str:
    if not isinstance(value, str) or not re.match(r"^\s*[\d.]+\s*[A-Za-z%]+\s*$", value):
        return ""
    unit = {"s": "seconds", "bytes": "bytes", "chars": "characters", "length": "tokens"}.get(
        key.rpartition("_")[2], "its unit by name"
    )
    return f"; write a plain number without a unit ({key} is in {unit})"


def _describe(model: type[BaseModel] | None, keys: list[Any]) -> str:
    name = next((key for key in reversed(keys) if isinstance(key, str)), None)
    field = model.model_fields.get(name) if model and name else None
    return f"; {field.description}" if field and field.description else ""


def _nearest(name: str, prefix: str, allowed: list[str]) -> str:
    """The key meant: one of this name further down (train.lr -> train.optimizer.lr), a like one here, or a like one anywhere."""
    paths = all_paths()
    exact = [path for path in paths if path.rpartition(".")[2] == name and path.startswith(prefix)]
    here = [f"{prefix}.{near}".lstrip(".") for near in difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)]
    near = exact or here or difflib.get_close_matches(name, paths, n=1, cutoff=0.6)
    return f"; nearest: {near[0]}" if near else ""


def _submodel(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for arg in typing.get_args(annotation):
        if found := _submodel(arg):
            return found
    return None


def _locate(loc: tuple[Any, ...], data: Any) -> tuple[list[Any], type[BaseModel] | None]:
    """Pydantic's location -> the keys the user typed (union branches left out) and the model that holds the last key."""
    keys: list[Any] = []
    holder: type[BaseModel] | None = JobSpec
    current: type[BaseModel] | None = JobSpec
    for i, key in enumerate(loc):
        present = (isinstance(data, dict) and key in data) or (
            isinstance(data, list) and isinstance(key, int) and key < len(data)
        )
        named = isinstance(key, str) and current is not None and key in current.model_fields and i == len(loc) - 1
        if not present and not named:
            continue
        keys.append(key)
        holder = current
        if isinstance(key, str) and current is not None:
            field = current.model_fields.get(key)
            current = _submodel(field.annotation) if field else None
        data = data[key] if present else None
    return keys, holder


def all_paths(model: type[BaseModel] = JobSpec, prefix: str = "") -> list[str]:
    """Every key path of the spec, for nearest-name hints."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        if sub := _submodel(field.annotation):
            found += all_paths(sub, f"{prefix}{name}.")
    return found
