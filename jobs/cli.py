"""`eagleray VERB SPEC --set path=value`: every verb on one screen. Parses, calls the verb's file, turns errors into a
sentence and an exit code (2: wrong spec or usage, 1: anything else). Imports typer alone; each verb imports what it needs."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="eagleray",
    help="Distributed training orchestration on Ray: one job spec takes a corpus to a live endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # plain help: rich would take a third of the time of --help
)
data_app = typer.Typer(
    help="The catalogue of open data and weights: list, fetch, info, add, remove.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
job_app = typer.Typer(help="Submitted jobs: status, logs, stop, list.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(job_app, name="job")

Spec = Annotated[Path, typer.Argument(help="Spec file (YAML).", metavar="SPEC")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a spec path: train.epochs=3. May be repeated.", metavar="PATH=VALUE"),
]
Json = Annotated[bool, typer.Option("--json", help="JSON lines on standard output, for machines.")]
ModelRef = Annotated[
    str, typer.Option("--model", help="A version number, an alias, or a package folder.", metavar="REF")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="The cluster's dashboard: host:8265, http://host:8265 or auto. Default: EAGLERAY_ADDRESS, RAY_API_SERVER_ADDRESS, else loopback.",
    ),
]
TokenEnv = Annotated[
    str | None,
    typer.Option(
        "--token-env",
        help="Environment variable that holds the cluster's token. Default: EAGLERAY_TOKEN, RAY_AUTH_TOKEN, ~/.ray/auth_token.",
        metavar="NAME",
    ),
]


@app.command()
def pipeline(
    spec: Spec,
    set_: Set = None,
    json: Json = False,
    keep_serving: Annotated[bool, typer.Option(help="Leave the endpoint up until Ctrl-C.")] = False,
) -> None:
    """Everything in order: prepare, tune, train, export, evaluate, register, serve, predict."""
    _verb("pipeline", "run", _load(spec, set_), spec_file=str(spec), json_lines=json, keep_serving=keep_serving)


@app.command()
def plan(spec: Spec, set_: Set = None, json: Json = False) -> None:
    """What a run will need and do: parameters, rates, memory, steps, trials, feasibility. Starts nothing."""
    _verb("plan", "run", _load(spec, set_), json_lines=json)


@app.command()
def prepare(spec: Spec, set_: Set = None, json: Json = False) -> None:
    """Corpus to token store: clean, split, augment, tokenize. Does nothing where the store is there."""
    _verb("prepare", "run", _load(spec, set_), json_lines=json)


@app.command()
def train(
    spec: Spec,
    set_: Set = None,
    json: Json = False,
    resume: Annotated[
        str | None, typer.Option(help="Go on with this run from its newest valid checkpoint.", metavar="RUN")
    ] = None,
    profile: Annotated[
        int,
        typer.Option(help="Record so many steps of the first worker with torch's profiler.", min=0, metavar="STEPS"),
    ] = 0,
) -> None:
    """Fine-tune on the cluster's workers with DeepSpeed ZeRO."""
    _verb("train", "run", _load(spec, set_), json_lines=json, resume=resume, profile=profile)


@app.command()
def check(
    spec: Spec,
    steps: Annotated[int, typer.Option(help="Global batches to train on, twice.", min=1, max=1000)] = 4,
    workers: Annotated[
        int | None, typer.Option(help="Compare so many workers; default: cluster.workers.", min=1, metavar="N")
    ] = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Prove that N workers give the numbers of one: losses, gradients, rates and weights of a few steps."""
    _verb("check", "run", _load(spec, set_), steps=steps, workers=workers, json_lines=json)


@app.command()
def tune(spec: Spec, set_: Set = None, json: Json = False) -> None:
    """Search spec paths with Ray Tune; prints a table, draws a picture, names the winner."""
    _verb("tune", "run", _load(spec, set_), json_lines=json)


@app.command()
def export(
    spec: Spec,
    run: Annotated[
        str | None, typer.Option("--run", help="The run whose best checkpoint becomes a package.", metavar="RUN")
    ] = None,
    average: Annotated[
        int,
        typer.Option(
            help="Above 1: the mean weights of so many of its newest checkpoints instead.", min=1, metavar="K"
        ),
    ] = 1,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(
            help="In place of a run, twice or more: a version, an alias, model:NAME@VERSION or a package, whose answers are averaged.",
            metavar="MODEL",
        ),
    ] = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Best checkpoint of a run, or several models as one, to a model package, verified and registered as a new version."""
    if (run is None) == (ensemble is None):
        raise typer.BadParameter("give either --run RUN or --ensemble MODEL, twice or more")
    if ensemble:
        _verb("ensemble", "run", _load(spec, set_), refs=ensemble, json_lines=json)
        return
    _verb("export", "run", _load(spec, set_), run_id=run, average=average, json_lines=json)


@app.command()
def evaluate(spec: Spec, model: ModelRef = "champion", set_: Set = None, json: Json = False) -> None:
    """Metrics of a model on the test split, with the majority-class and TF-IDF + SVM baselines."""
    _verb("evaluate", "run", _load(spec, set_), model=model, json_lines=json)


@app.command()
def embed(
    spec: Spec,
    model: Annotated[
        str | None,
        typer.Option(help="A version, an alias or a package; default: the spec's pretrained model.", metavar="REF"),
    ] = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Vectors of a frozen encoder for every row, kept in storage, and the score of a logistic regression on them."""
    _verb("embed", "run", _load(spec, set_), model=model, json_lines=json)


@app.command()
def prompt(spec: Spec, set_: Set = None, json: Json = False) -> None:
    """Ask a causal model to classify by prompts, zero- and few-shot; nothing is trained."""
    _verb("prompt", "run", _load(spec, set_), json_lines=json)


@app.command()
def serve(spec: Spec, model: ModelRef = "champion", set_: Set = None) -> None:
    """Serve a model over HTTP until Ctrl-C, or deploy it to cluster.address and return."""
    _verb("serve", "run", _load(spec, set_), model=model)


@app.command()
def promote(
    spec: Spec,
    version: Annotated[int, typer.Option("--version", help="The registered version that takes over.")],
    set_: Set = None,
) -> None:
    """Move a live endpoint to another version without losing a request, then set the alias `champion`."""
    _verb("promote", "run", _load(spec, set_), version=version)


@app.command()
def explain(
    target: Annotated[
        str, typer.Argument(help="Endpoint URL, package folder, or a spec file (its champion).", metavar="TARGET")
    ],
    model: ModelRef = "champion",
    set_: Set = None,
    json: Json = False,
) -> None:
    """Which rows, seeds, trial, run, code and versions a model came from."""
    _verb("explain", "run", target, model=model, overrides=set_ or (), json_lines=json)


@app.command()
def submit(
    spec: Spec,
    verb_: Annotated[
        str, typer.Option("--verb", help="What the job runs: pipeline, prepare, tune, train ...")
    ] = "pipeline",
    address: Address = None,
    follow: Annotated[bool, typer.Option(help="Print the job's log until it ends.")] = True,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Options of the verb, after --: -- --run RUN", metavar="[-- OPTIONS]")
    ] = None,
    token_env: TokenEnv = None,
    set_: Set = None,
) -> None:
    """Run a verb of the same spec on a Ray cluster through its Jobs API."""
    loaded = _load(spec, set_)
    options = {
        "verb": verb_,
        "address": address,
        "follow": follow,
        "arguments": arguments or (),
        "token_env": token_env,
    }
    raise typer.Exit(_verb("submit", "run", loaded, **options))


@app.command()
def doctor(
    spec: Annotated[
        Path | None, typer.Argument(help="Check this spec's storage, ports and cluster too.", metavar="[SPEC]")
    ] = None,
    set_: Set = None,
    ray: Annotated[bool, typer.Option("--ray", help="Start an embedded Ray too, 5 to 15 s.")] = False,
) -> None:
    """What is wrong on this machine and how to mend it: versions, Ray, disk, ports, tokens, caches."""
    raise typer.Exit(_verb("doctor", "run", _load(spec, set_) if spec else None, ray=ray))


@app.command()
def schema() -> None:
    """JSON schema of a spec, for editors."""
    _verb("schema", "run")


@data_app.command("list")
def data_list(json: Json = False) -> None:
    """The catalogue: name, kind, licence, size, fetched or not."""
    _verb("data", "list_entries", json_lines=json)


@data_app.command("fetch")
def data_fetch(
    targets: Annotated[
        list[str], typer.Argument(help="Catalogue names, or a spec: everything it names.", metavar="NAME|SPEC...")
    ],
) -> None:
    """Download, check and convert catalogue items once."""
    _verb("data", "fetch", targets)


@data_app.command("info")
def data_info(name: str, json: Json = False) -> None:
    """Licence, origin and fingerprint of one item, and its first rows once it is fetched."""
    _verb("data", "info", name, json_lines=json)


@data_app.command("add")
def data_add(
    name: str,
    url: Annotated[
        str, typer.Argument(help="A file, a folder, or a URL: https://, s3://, hf://datasets/...", metavar="URL|PATH")
    ],
    kind: Annotated[str, typer.Option(help="corpus, model, thesaurus ...")] = "corpus",
    licence: Annotated[str, typer.Option(help="Kept with every model made from it.")] = "not stated",
    sha256: Annotated[str, typer.Option(help="Of the file; else the first fetch notes it.", metavar="HEX")] = "",
) -> None:
    """Add an item of your own to the catalogue; a spec names it catalog:NAME."""
    _verb("data", "add", name, url, kind=kind, licence=licence, sha256=sha256)


@data_app.command("remove")
def data_remove(name: str) -> None:
    """Forget an item that you added, and its copy in the cache."""
    _verb("data", "remove", name)


@data_app.command("preview")
def data_preview(
    spec: Spec,
    rows: Annotated[int, typer.Option(help="Rows of each source.", min=1, max=1000)] = 5,
    set_: Set = None,
    json: Json = False,
) -> None:
    """A few rows before and after cleaning and each augmentation op; a picture of images and sounds."""
    _verb("preview", "run", _load(spec, set_), rows=rows, json_lines=json)


@data_app.command("tokenizer")
def data_tokenizer(
    spec: Spec,
    kind: Annotated[str, typer.Option(help="bpe (byte-level), wordpiece or unigram.", metavar="KIND")] = "bpe",
    size: Annotated[int, typer.Option(help="Tokens in the vocabulary, special ones counted.", min=2, max=10**6)] = 8000,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Fold capitals and accents.")] = False,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Train a tokenizer on the spec's cleaned texts; report vocabulary, fertility and unknowns."""
    _verb("vocabulary", "run", _load(spec, set_), kind=kind, size=size, lowercase=lowercase, json_lines=json)


@job_app.command("status")
def job_status(job_id: str, address: Address = None, token_env: TokenEnv = None, json: Json = False) -> None:
    """State of one job."""
    _verb("job", "status", address=address, job_id=job_id, json_lines=json, token_env=token_env)


@job_app.command("logs")
def job_logs(
    job_id: str,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    token_env: TokenEnv = None,
) -> None:
    """What a job printed."""
    _verb("job", "logs", address=address, job_id=job_id, follow=follow, token_env=token_env)


@job_app.command("stop")
def job_stop(job_id: str, address: Address = None, token_env: TokenEnv = None) -> None:
    """End a job."""
    _verb("job", "stop", address=address, job_id=job_id, token_env=token_env)


@job_app.command("list")
def job_list(address: Address = None, token_env: TokenEnv = None, json: Json = False) -> None:
    """All jobs of a cluster."""
    _verb("job", "list_jobs", address=address, json_lines=json, token_env=token_env)


def _verb(name: str, function: str, *args: Any, **options: Any) -> Any:
    """Import one verb's file and call it; its arguments, the checked spec too, are made first. Ends with 130 after Ctrl-C and 143 after
    SIGTERM, as a shell tells it, once all has unwound."""
    try:
        return getattr(importlib.import_module(f"jobs.{name}"), function)(*args, **options)
    except KeyboardInterrupt as error:  # while a fit runs, SIGTERM comes as one too
        code = getattr(error, "exit_code", 130)
    except SystemExit as error:  # Ray's own answer to SIGTERM, with the signal's number
        if error.code != signal.SIGTERM:
            raise
        code = 143
    print("interrupted" if code == 130 else "terminated", file=sys.stderr)
    raise typer.Exit(code)


def _load(spec: Path, overrides: list[str] | None) -> Any:
    from jobs.spec import load_spec

    return load_spec(spec, overrides or ())


def main() -> None:
    """The `eagleray` command. A user's error is a sentence on standard error; only a defect of ours shows a traceback."""
    gc.set_threshold(20_000)  # of 700: what is imported stays, and looking for garbage in it takes 0.4 s of a start
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:  # Ctrl-C at a question
        sys.exit(130)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None or os.environ.get("EAGLERAY_TRACEBACK"):
            raise
        if hasattr(error, "show"):  # a wrong option or argument: typer's own words
            error.show()
        else:
            for line in str(error).splitlines() or [type(error).__name__]:
                print(f"error: {line}", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
