"""`eagleray explain TARGET`: where a model came from, link by link: endpoint, version, package, checkpoint, run, trial, seed, rows,
input files, weights, licences, code, libraries. Takes an endpoint's URL (asked over HTTP with the token in EAGLERAY_SERVE_TOKEN, where
one is set), a package folder, or a spec file (its registered model). Reads what export wrote into the package; starts no Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestration.errors import UserError

TOKEN_ENV = "EAGLERAY_SERVE_TOKEN"
LINEAGE, ROUTE = "lineage.json", "/v1/lineage"
WAIT_S = 20.0
INDENT = 12
Part = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """One model's chain. `endpoint`, `version`: None where the target does not know them. `lineage`: as export wrote it."""

    endpoint: str | None
    name: str
    version: str | None
    package: str
    lineage: Part


def run(target: str, *, model: str = "champion", overrides: Sequence[str] = (), json_lines: bool = False) -> None:
    """Raises UserError where the target is none of the three, does not answer, or holds no lineage."""
    found = origins(target, model=model, overrides=overrides)
    if json_lines:
        print(json.dumps({"type": "lineage", "models": [asdict(one) for one in found]}, ensure_ascii=False))
        return
    for one in found:
        show(one)


def origins(target: str, *, model: str = "champion", overrides: Sequence[str] = ()) -> list[Origin]:
    """An endpoint may have several versions (while one takes over from another); the others give one."""
    path = Path(target).expanduser()
    if target.startswith(("http://", "https://")):
        return _of_endpoint(target, model)
    if path.is_dir():
        return [_of_folder(path)]
    if path.is_file():
        return [_of_spec(path, model, overrides)]
    raise UserError(
        f"{target}: neither an endpoint URL (http://127.0.0.1:8000), nor a package folder, nor a spec file; give one of the three"
    )


# ------------------------------------------------------------------------------------------------ the three targets


def _of_endpoint(url: str, model: str) -> list[Origin]:
    base = url.rstrip("/").removesuffix(ROUTE)
    said = _asked(base)
    versions = said.get("versions") if isinstance(said, dict) else None
    if not isinstance(versions, dict) or not all(isinstance(value, dict) for value in versions.values()):
        raise UserError(
            f"{base}{ROUTE}: the answer is not an endpoint's lineage (no `versions`); is this the URL that serve printed?"
        )
    if not versions:
        raise UserError(f"{base}: the endpoint has no version yet; serve or promote one")
    if model.isdigit():
        if model not in versions:
            raise UserError(f"{base} has no version {model}; versions: {', '.join(versions)}")
        versions = {model: versions[model]}
    return [
        Origin(
            endpoint=base,
            name=said.get("name", ""),
            version=version,
            package=str(value.get("package", "")),
            lineage={key: part for key, part in value.items() if key != "package"},
        )
        for version, value in versions.items()
    ]


def _asked(base: str) -> Any:
    import httpx

    token = os.environ.get(TOKEN_ENV)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(base + ROUTE, headers=headers, timeout=WAIT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"{base}: no answer ({error}); is the endpoint up? `eagleray serve SPEC` prints its URL"
        ) from error
    if answer.status_code == 401:
        what = "was refused" if token else "is not set"
        raise UserError(f"{base} asks for a token and {TOKEN_ENV} {what}; set it to the endpoint's token")
    if answer.status_code != 200:
        raise UserError(f"{base}{ROUTE} answered {answer.status_code}; is this the URL that serve printed?")
    try:
        return answer.json()
    except ValueError as error:
        raise UserError(
            f"{base}{ROUTE}: the answer is not JSON ({error}); is this the URL that serve printed?"
        ) from None


def _of_folder(folder: Path, *, package: str | None = None, version: str | None = None) -> Origin:
    path = folder / LINEAGE
    try:
        lineage = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no {LINEAGE} in it; give a package folder as `eagleray export` makes it (packages/... in storage)"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); export the package again") from None
    if not isinstance(lineage, dict):
        raise UserError(f"{path}: holds no JSON object; export the package again")
    return Origin(
        endpoint=None, name=lineage.get("name", ""), version=version, package=package or str(folder), lineage=lineage
    )


def _of_spec(path: Path, model: str, overrides: Sequence[str]) -> Origin:
    from jobs.locate import locate
    from jobs.spec import load_spec
    from orchestration.registry import Registry
    from orchestration.storage import Storage

    spec = load_spec(path, list(overrides))
    storage = Storage(spec.storage)
    found = locate(model, name=spec.name, storage=storage, registry=Registry(storage, spec.tracking))
    folder = storage.fetch(found.package_rel)
    return _of_folder(folder, package=storage.path(found.package_rel), version=found.version)


# ------------------------------------------------------------------------------------------------ for people


def show(origin: Origin) -> None:
    """A link a line, under the one that came from it; not wrapped, so that names and hashes can be copied and searched for."""
    from rich.console import Console

    try:
        links = list(chain(origin))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{origin.package}: its lineage is not as export writes it ({type(error).__name__}: {error}); --json shows it as it is"
        ) from error
    out = Console(soft_wrap=True, highlight=False, markup=False)
    out.rule(f"{origin.name or 'model'}{f' version {origin.version}' if origin.version else ''}")
    for name, text in links:
        head, *rest = text.splitlines() or [""]
        out.print(f"{name:<{INDENT}}", style="bold", end="")
        out.print("\n".join([head, *(" " * INDENT + line for line in rest)]))


def chain(origin: Origin) -> Iterator[tuple[str, str]]:
    """(link, what is known of it), endpoint first. A part that the package does not tell is called `not recorded`."""
    told = origin.lineage
    if origin.endpoint:
        yield "endpoint", origin.endpoint
    if origin.version:
        yield "version", f"{origin.name} {origin.version}"
    yield "package", _lines(origin.package, f"made {told['created']}" if told.get("created") else "")
    if told.get("members"):
        for number, part in enumerate(told["members"], start=1):  # answers are the mean of theirs
            yield "member", f"{number} of {len(told['members'])}   {part['package']}"
            yield from _made(part["lineage"])
    else:
        yield from _made(told)
    yield "licences", _told(told.get("licences"), _licences)
    yield "code", _told(told.get("code"), _code)
    yield "libraries", _told(told.get("libraries"), lambda part: ", ".join(f"{name} {part[name]}" for name in part))
    yield "system", _spaced(f"Python {told.get('python', 'not recorded')}", told.get("platform"))


def _made(told: Part) -> Iterator[tuple[str, str]]:
    """What one model was trained from."""
    yield "checkpoint", _told(told.get("run"), _checkpoint)
    yield "run", _told(told.get("run"), _run)
    yield "trial", _trial(told.get("trial"))
    yield "seed", str(told.get("seed", "not recorded"))
    used = ((told.get("spec") or {}).get("train") or {}).get("rows")
    yield "store", _told(told.get("store"), lambda part: _store(part, used))
    yield "inputs", _told(told.get("store"), _inputs)
    yield "weights", _told(told.get("weights"), lambda part: _lines(part.get("path"), part.get("rel")))


def _told(part: Any, words: Any) -> str:
    return (words(part) if isinstance(part, dict) else "") or "not recorded"


def _checkpoint(run: Part) -> str:
    value = run.get("value")
    score = f"{run.get('metric')} {value:.4f}" if isinstance(value, (int, float)) else ""
    step = f"step {run['step']} of {run.get('steps', '?')}" if run.get("step") is not None else ""
    return _lines(_spaced(step, score), run.get("checkpoint"))


def _run(run: Part) -> str:
    workers = f"{run['workers']} workers" if run.get("workers") else ""
    zero = f"ZeRO {run['zero_stage']}" if run.get("zero_stage") is not None else ""
    resumed = f"resumed from {run['resumed_from']}" if run.get("resumed_from") else ""
    return _spaced(run.get("id"), workers, zero, resumed)


def _trial(trial: Any) -> str:
    if not isinstance(trial, dict):
        return "none: the spec's own values, no sweep chose them"
    value = trial.get("value")
    score = f" by {trial.get('metric')} {value:.4f}" if isinstance(value, (int, float)) else ""
    values = (f"{path} = {chosen}" for path, chosen in (trial.get("values") or {}).items())
    return _lines(
        _spaced(trial.get("id"), f"best of {trial.get('trials', '?')}{score}"), f"sweep {trial.get('sweep')}", *values
    )


def _store(store: Part, used: int | None) -> str:
    rows = ", ".join(f"{split} {count:,}" for split, count in (store.get("rows") or {}).items())
    head = f"; {used:,} train rows used" if used else ""
    return _lines(store.get("address"), f"rows: {rows}{head}" if rows else "")


def _inputs(store: Part) -> str:
    lines = []
    for file in store.get("inputs") or []:
        size = f"{file['records']:,} records, {file['bytes']:,} bytes" if {"records", "bytes"} <= set(file) else ""
        lines.append(_spaced(file.get("source") or file.get("name"), file.get("rel"), size))
        lines.append(f"  sha256 {file['sha256']}" if file.get("sha256") else "")
    return _lines(*lines)


def _licences(items: Part) -> str:
    """Of catalogue items; what lies in the user's own files is the user's to know."""
    return _lines(*(f"{item}: {licence}" for item, licence in items.items())) or "no catalogue item was used"


def _code(code: Part) -> str:
    version = f"eagleray {code['eagleray']}" if code.get("eagleray") else ""
    commit = f"commit {code['commit']}" if code.get("commit") else "no commit known"
    return _lines(_spaced(version, commit), f"sha256 {code['sha256']}" if code.get("sha256") else "")


def _spaced(*words: Any) -> str:
    return "   ".join(str(word) for word in words if word)


def _lines(*words: Any) -> str:
    return "\n".join(str(word) for word in words if word)
