"""`edgecal check`: whether a bundle fits, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edgecal.cli.options import (
    BuilderOption,
    DlaOption,
    JsonOption,
    NoFp16Option,
    NoGpuFallbackOption,
    PrecisionOption,
    QuietOption,
    VerboseOption,
)
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import Console

    from edgecal.adapters.bundle import Bundle
    from edgecal.core.build import BuildOptions
    from edgecal.core.compat import CacheFacts
    from edgecal.core.findings import Finding
    from edgecal.core.rules.explanation import Explanation
    from edgecal.core.target import Target
    from edgecal.workflows.check import CheckReport, TargetCheck

    _Options = Callable[[Target], BuildOptions]
    _Judge = Callable[[Bundle, CacheFacts, _Options], Sequence[TargetCheck]]

_TABLES = "Instead of a target: a device by the platform tables"
_SOURCES = "What the bundle was made from"
_STYLES: Final = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def check(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE",
            help="The bundle; with --explain, slugs of rules instead.",
            show_default="[push] bundle of edgecal.toml",
        ),
    ] = None,
    *,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="T",
            help="A name in edgecal.toml, an ssh_config host, or \\[user@]host\\[:port]; "
            "repeatable. Without one only the bundle itself is checked.",
            show_default=False,
        ),
    ] = None,
    tensorrt: Annotated[
        str | None,
        typer.Option(
            metavar="X.Y.Z",
            help="The TensorRT it would have.",
            rich_help_panel=_TABLES,
            show_default="the JetPack's",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="SLUG",
            help="A module, such as orin-nx-16gb; 'edgecal targets list' shows all.",
            rich_help_panel=_TABLES,
            show_default=False,
        ),
    ] = None,
    jetpack: Annotated[
        str | None,
        typer.Option(
            metavar="V",
            help="Its JetPack, such as 5.1.2.",
            rich_help_panel=_TABLES,
            show_default=False,
        ),
    ] = None,
    dla: DlaOption = None,
    no_gpu_fallback: NoGpuFallbackOption = False,
    no_fp16: NoFp16Option = False,
    precision: PrecisionOption = None,
    builder: BuilderOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL.onnx",
            help="Where its network lies.",
            rich_help_panel=_SOURCES,
            show_default="as calibrated",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Where its data lies.", rich_help_panel=_SOURCES, show_default="as calibrated"
        ),
    ] = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Read them whole, whatever size and time of change say.",
            rich_help_panel=_SOURCES,
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Say what a rule means, why, and from where; check nothing."
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Tell whether a bundle fits a target, why not, and what would; nothing is sent or changed.

    The exit code is 3 if there is an error, 4 if a target could not be asked, else 0.

    [bold]Examples[/]

    edgecal check net.edgecal --target nvidia@xavier.local

    edgecal check net.edgecal --device orin-nx-16gb --tensorrt 10.3.0 --dla 0

    edgecal check --explain tensorrt-version
    """
    from edgecal.cli.building import choose_options
    from edgecal.cli.push import max_exit_code
    from edgecal.cli.wiring import bundling, lookup
    from edgecal.workflows.check import check_bundle, look_at_cache

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    if explain:
        _explain(words or [], story)
        return
    project = lookup.project()
    path = _bundle(words or [], project.push.bundle)
    said = {
        "dla_core": dla,
        "gpu_fallback": False if no_gpu_fallback else None,
        "fp16": False if no_fp16 else None,
        "precision": precision,
    }
    assumed = {"--tensorrt": tensorrt, "--device": device, "--jetpack": jetpack}
    judge = _judge(targets or [], assumed, builder)
    bundle = bundling.read_bundle(path)
    cache = look_at_cache(bundle, path=str(path))
    sources = bundling.source_findings(bundle, model=model, data=data, deep=deep)
    checks = judge(bundle, cache, lambda one: choose_options(project, one, said))
    report = check_bundle(cache, sources, choose_options(project, None, said), checks)
    story.result(_document(report, path), lambda console: _show(console, report, story))
    raise typer.Exit(max_exit_code(report.exit_codes))


def _bundle(words: Sequence[str], of_project: Sequence[str]) -> Path:
    from edgecal.errors import InputError

    found = list(words) or list(of_project)
    if len(found) != 1:
        raise InputError(
            f"expected one bundle, found {len(found)}{f': {chr(32).join(found)}' if found else ''}",
            where="check",
            remedy="name one: edgecal check NAME.edgecal --target T",
        )
    return Path(found[0])


def _judge(
    targets: Sequence[str], assumed: Mapping[str, str | None], builder: str | None
) -> _Judge:
    """Find out, before anything is read, on which targets the bundle is to be judged."""
    from edgecal.errors import InputError

    given = [option for option, value in assumed.items() if value is not None]
    if targets and given:
        raise InputError(
            f"--target and {given[0]} contradict each other: a target is asked what it is",
            where="check",
            remedy=f"leave out --target, or {' and '.join(given)}",
        )
    if given:
        return _by_tables(assumed, builder)
    return _by_asking(targets, builder)


def _by_tables(assumed: Mapping[str, str | None], builder: str | None) -> _Judge:
    from edgecal.cli.wiring import lookup, remote
    from edgecal.core.assumed import assume_target
    from edgecal.workflows.check import check_on
    from edgecal.workflows.plan import judge_plan

    platforms = lookup.platforms()
    target, facts = assume_target(
        platforms,
        device=assumed["--device"],
        tensorrt=assumed["--tensorrt"],
        jetpack=assumed["--jetpack"],
        builder=builder,
    )

    def judge(bundle: Bundle, cache: CacheFacts, options: _Options) -> list[TargetCheck]:
        chosen = options(target)
        checked = check_on(bundle, cache, target, facts=facts, options=chosen, platforms=platforms)
        return [judge_plan(bundle, checked, chosen, remote.builders())]

    return judge


def _by_asking(targets: Sequence[str], builder: str | None) -> _Judge:
    from edgecal.cli.several import ask_each
    from edgecal.cli.wiring import lookup, remote
    from edgecal.workflows.check import check_live
    from edgecal.workflows.plan import judge_plan

    wanted = [lookup.target(text, builder=builder) for text in targets]

    def judge(bundle: Bundle, cache: CacheFacts, options: _Options) -> list[TargetCheck]:
        if not wanted:
            return []
        world = remote.world()
        by_name = {one.name: one for one in wanted}

        def ask(name: str) -> TargetCheck:
            chosen = options(by_name[name])
            checked = check_live(bundle, cache, by_name[name], chosen, world)
            return judge_plan(bundle, checked, chosen, world.builders)

        answers, _ = ask_each(by_name, ask)
        found = list(answers.values())
        if len(found) == 1 and found[0].error is not None:
            raise found[0].error
        return found

    return judge


def _document(report: CheckReport, path: Path) -> dict[str, object]:
    return {
        "schema": "edgecal.check/1",
        "bundle": str(path),
        "ok": not any(report.exit_codes),
        "findings": [finding.to_json() for finding in report.findings],
        "targets": [
            {
                "target": one.target,
                "ok": not any((report.exit_codes[0], one.exit_code)),
                "builder": one.builder.name if one.builder else None,
                "tensorrt": str(one.builder.tensorrt)
                if one.builder and one.builder.tensorrt
                else None,
                "error": one.error.to_json() if one.error else None,
            }
            for one in report.targets
        ],
    }


def _show(console: Console, report: CheckReport, story: Story) -> None:
    """Print a verdict per target, then every finding, worst first; notes only with -v."""
    from rich.markup import escape

    from edgecal.cli.printable import printable
    from edgecal.core.findings import Severity

    for line in _verdicts(report):
        console.print(line)
    order = list(Severity)
    for finding in sorted(report.findings, key=lambda one: order.index(one.severity)):
        if finding.severity is Severity.NOTE and not story.verbose:
            continue
        style = _STYLES[finding.severity.value]
        subject, message, remedy = (
            escape(printable(text)) for text in (finding.subject, finding.message, finding.remedy)
        )
        console.print(f"[{style}]{finding.severity.value}[/] {finding.rule} ({subject}): {message}")
        console.print(f"  try: {remedy}")


def _verdicts(report: CheckReport) -> Iterator[str]:
    from rich.markup import escape

    from edgecal.cli.printable import printable

    if not report.targets:
        yield f"{escape(report.bundle)}: {_verdict(report.about_bundle, 'good')}"
    for one in report.targets:
        name = escape(printable(one.target))
        if one.error is not None:
            what = escape(printable(one.error.what))
            yield f"{name}: [bold red]not checked[/]: {what}"
            yield f"  try: {escape(printable(one.error.remedy))}"
        else:
            found = tuple(dict.fromkeys((*report.about_bundle, *one.findings)))
            yield f"{name}: {_verdict(found, 'fits')}"


def _verdict(findings: Sequence[Finding], good: str) -> str:
    from edgecal.core.findings import Severity

    counts = []
    for severity in Severity:
        count = sum(1 for one in findings if one.severity is severity)
        if count:
            counts.append(f"{count} {severity.value}{'' if count == 1 else 's'}")
    shown = ", ".join(counts)
    if any(one.severity is Severity.ERROR for one in findings):
        bad = {"fits": "does not fit", "good": "not good"}[good]
        return f"[bold red]{bad}[/]: {shown}"
    return f"[green]{good}[/]{f': {shown}' if shown else ''}"


def _explain(words: Sequence[str], story: Story) -> None:
    from edgecal.core.access import RULES as ACCESS_RULES
    from edgecal.core.compat import CACHE_RULES, RULES
    from edgecal.core.freshness import FRESHNESS_RULES
    from edgecal.core.rules.explanation import explain_rule
    from edgecal.errors import InputError

    rules = {**FRESHNESS_RULES, **CACHE_RULES, **ACCESS_RULES, **RULES}
    unknown = [word for word in words if word not in rules]
    if unknown or not words:
        raise InputError(
            f"no rule is called {unknown[0]!r}" if unknown else "which rule is to be explained?",
            where="--explain",
            remedy="name one of " + ", ".join(sorted(rules)),
        )
    explained = [explain_rule(word, rules[word]) for word in words]
    document = {
        "schema": "edgecal.check-rules/1",
        "rules": [one.to_json() for one in explained],
    }
    story.result(document, lambda console: _show_rules(console, explained))


def _show_rules(console: Console, explained: Sequence[Explanation]) -> None:
    from rich.markup import escape

    for one in explained:
        console.print(f"[bold]{one.rule}[/]: {escape(one.says)}")
        for key, text in one.to_json().items():
            if key not in {"rule", "says"} and text:
                console.print(f"  [dim]{key:9}[/] {escape(text)}")
