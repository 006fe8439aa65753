"""``secrets``: who reads the encrypted files of a repository, whether all is well with them, and what git does."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from shiftable import sops
from shiftable.cli._context import Context, Group, json_option, pass_context, say, shown
from shiftable.config import did_you_mean
from shiftable.errors import ConfigError, ShiftableError
from shiftable.masking import Masked
from shiftable.wording import counted

__all__ = ["commands"]

_BEGIN, _END = "# shiftable secrets git-setup: begin", "# shiftable secrets git-setup: end"

root_option = click.option(
    "-C", "root", type=click.Path(path_type=Path, exists=True, file_okay=False), default=".", help="The repository."
)
identity_option = click.option(
    "-i",
    "--identity",
    type=click.Path(path_type=Path),
    help="The file of your private key; else where keys usually are.",
)


def _identities(file: Path | None) -> sops.Identities:
    """Find this user's keys; passphrases are asked for on a terminal only."""
    return sops.find_identities(file, ask=_ask if sys.stdin.isatty() and sys.stderr.isatty() else None)


def _ask(source: str) -> Masked:
    return Masked(click.prompt(f"passphrase of {shown(source)}", hide_input=True, err=True))


# who reads


@click.group(cls=Group)
def recipients() -> None:
    """Say who can read which files, and encrypt the files anew for whom that is."""


@recipients.command("list")
@root_option
@json_option
@pass_context
def list_(context: Context, root: Path, as_json: bool) -> None:
    """Show the rules, and the files that are encrypted for others than their rule says."""
    repository = sops.Repository.open(root)
    policy = _policy(repository)
    wrong = [
        (path, finding.text)
        for path, findings in repository.verify(None)
        for finding in findings
        if finding.kind in {"recipients", "no-rule", "in-clear"}
    ]
    if as_json:
        rules = [{"path": rule.path, "readers": list(rule.readers)} for rule in policy.rules]
        differing = [{"path": path, "problem": text} for path, text in wrong]
        context.json({"recipients": dict(policy.recipients), "rules": rules, "differing": differing})
        return
    context.table(("name", "key"), [(name, shown(key)) for name, key in policy.recipients.items()])
    context.table(("path", "readers"), [(rule.path, ", ".join(rule.readers)) for rule in policy.rules])
    for path, text in wrong:
        say(f"{path}: {text}")


@recipients.command()
@click.argument("name")
@click.argument("key")
@click.option("--path", "paths", multiple=True, help="Only for files of this rule, which is made if there is none.")
@root_option
@identity_option
@json_option
@pass_context
def add(
    context: Context, name: str, key: str, paths: tuple[str, ...], root: Path, identity: Path | None, as_json: bool
) -> None:
    """Let NAME read, whose public key is KEY: age1…, ssh-ed25519 … or ssh-rsa …, or a file that holds one."""
    repository = sops.Repository.open(root)
    policy = repository.policy or sops.Policy(repository.root, {}, ())
    if not paths and not policy.rules:
        raise ConfigError("there are no rules yet; say --path: `--path 'secrets/**'`")
    new = [sops.FileRule(path, (name,)) for path in paths if path not in {rule.path for rule in policy.rules}]
    policy = attrs.evolve(policy, rules=(*policy.rules, *new))
    repository = repository.save(policy.with_reader(name, _public(key), paths))
    _sync(context, repository, identity, as_json=as_json)


def _public(key: str) -> str:
    """Return a public key that was given, or that stands in a file that was named."""
    if key.startswith(("age1", "ssh-")) or not Path(key).is_file():
        return key.strip()
    lines = (line.strip() for line in Path(key).read_text(errors="replace").splitlines())
    return next((line for line in lines if line.startswith(("age1", "ssh-"))), "")


@recipients.command()
@click.argument("name")
@click.option("--path", "paths", multiple=True, help="Only from the rule of this path.")
@root_option
@identity_option
@json_option
@pass_context
def remove(
    context: Context, name: str, paths: tuple[str, ...], root: Path, identity: Path | None, as_json: bool
) -> None:
    """Let NAME read no longer. The files get new keys, and what NAME could read is marked as exposed.

    It goes on where a run was stopped: a name that is gone from the rules already is told, and no error.
    """
    repository = sops.Repository.open(root)
    before = _policy(repository)
    if name not in before.recipients:
        click.echo(shown(f"the rules name no {name!r}{did_you_mean(name, before.recipients)}"), err=True)
    repository = repository.save(before.without_reader(name, paths))
    _sync(context, repository, identity, before, as_json=as_json)


@recipients.command()
@root_option
@identity_option
@json_option
@pass_context
def sync(context: Context, root: Path, identity: Path | None, as_json: bool) -> None:
    """Encrypt each file for the readers that its rule names."""
    repository = sops.Repository.open(root)
    _policy(repository)
    _sync(context, repository, identity, as_json=as_json)


def _sync(
    context: Context,
    repository: sops.Repository,
    identity: Path | None,
    before: sops.Policy | None = None,
    *,
    as_json: bool,
) -> None:
    """Encrypt what has other readers than its rule says; ``before`` has the names of those who leave."""
    policy = _policy(repository)
    named = before or policy
    changed = []
    for each in repository.sync(_identities(identity)):
        changed.append(each)
        if not as_json and each.change == "refused":
            click.echo(f"{shown(each.path)}: {shown(each.problem)}", err=True)
        elif not as_json and each.change != "kept":
            said = [f"+{policy.name_of(key)}" for key in each.joined] + [f"-{named.name_of(key)}" for key in each.left]
            say(f"{each.path}: {' '.join(said)}")
    counts = Counter(each.change for each in changed)
    exposed = counts["rekeyed"]
    if as_json:
        context.json([{"path": each.path, "change": each.change, "problem": each.problem} for each in changed])
    else:
        refused = f", not touched: {counts['refused']}" if counts["refused"] else ""
        say(f"encrypted anew: {counts['widened'] + exposed} files, as they were: {counts['kept']}{refused}")
    if exposed:
        note = f"who left has read what is in {exposed} of them; it is marked, rotate it"
        click.echo(f"{note}; `shiftable secrets rotate --due`, and `shiftable secrets verify` lists them", err=True)
    if counts["refused"]:
        sys.exit(1)


def _policy(repository: sops.Repository) -> sops.Policy:
    if repository.policy is None:
        why = f"there is no .shiftable/secrets.yaml in {repository.root} or above it"
        raise ConfigError(f"{why}; `shiftable secrets recipients add NAME KEY --path 'secrets/**'` makes it")
    return repository.policy


# whether all is well


@click.command()
@root_option
@identity_option
@click.option("--no-key", is_flag=True, help="Check what can be checked without a private key.")
@click.option(
    "--scan/--no-scan", "scanning", default=True, help="Also look for credentials in clear.", show_default=True
)
@json_option
@pass_context
def verify(context: Context, root: Path, identity: Path | None, no_key: bool, scanning: bool, as_json: bool) -> None:
    """Check every encrypted file: it decrypts, nothing in it was changed, its readers are those of the rules.

    Without a private key it says so and checks the rest: structure, readers, that no value is in clear.
    """
    repository = sops.Repository.open(root)
    identities = None if no_key else _identities(identity)
    if identities is not None and not identities:
        identities = None
        click.echo(f"there is no private key ({identities_hint()}), so nothing was decrypted", err=True)
    results = list(repository.verify(identities))
    findings = [finding for _, found in results for finding in found]
    leaks, stale = _scanned(repository.root, untracked=False) if scanning else ((), ())
    failed = bool(leaks) or any(finding.fails for finding in findings)
    if as_json:
        context.json(
            {
                "ok": not failed,
                "decrypted": identities is not None,
                "files": [path for path, _ in results],
                "findings": [attrs.asdict(finding) for finding in findings],
                "leaks": [attrs.asdict(leak) for leak in leaks],
                "unused_allowances": [attrs.asdict(entry) for entry in stale],
            }
        )
    else:
        for finding in findings:
            say(f"{finding.path}: {finding.kind}: {finding.text}")
        _show_leaks(leaks, stale)
        counts = (len(results), "file"), (sum(each.fails for each in findings), "problem"), (len(leaks), "credential")
        say(f"{', '.join(counted(*each) for each in counts)} in clear")
    if failed:
        sys.exit(1)


def identities_hint() -> str:
    """Say where a key can be given."""
    return "SHIFTABLE_AGE_KEY, SHIFTABLE_AGE_KEY_FILE or --identity"


@click.command()
@root_option
@click.option("--all", "untracked", is_flag=True, help="Also files that git does not track, except what it ignores.")
@json_option
@pass_context
def scan(context: Context, root: Path, untracked: bool, as_json: bool) -> None:
    """Find credentials that stand in the repository in clear: known forms, private keys, random values.

    What is none goes into .shiftable/allow.yaml, with a reason: entries of path, reason and perhaps kind and mark.
    Or it has `shiftable: allow-secret REASON` on its line.
    """
    leaks, stale = _scanned(sops.Repository.open(root).root, untracked=untracked)
    if as_json:
        context.json(
            {
                "ok": not leaks,
                "leaks": [attrs.asdict(leak) for leak in leaks],
                "unused_allowances": [attrs.asdict(entry) for entry in stale],
            }
        )
    else:
        _show_leaks(leaks, stale)
        say(f"{counted(len(leaks), 'credential')} in clear")
    if leaks:
        sys.exit(1)


def _scanned(root: Path, *, untracked: bool) -> tuple[tuple[sops.Leak, ...], tuple[sops.Allowed, ...]]:
    return sops.scan(root, sops.tracked(root, untracked=untracked), sops.Allowlist.read(root))


def _show_leaks(leaks: Sequence[sops.Leak], stale: Sequence[sops.Allowed]) -> None:
    for leak in leaks:
        say(f"{leak.path}:{leak.line}: {leak.kind} (mark {leak.mark})")
    for entry in stale:
        click.echo(
            f"note: .shiftable/allow.yaml allows nothing at {shown(entry.path)}: {shown(entry.reason)}", err=True
        )


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def encrypt(files: tuple[Path, ...]) -> None:
    """Encrypt files that are in clear, in their place, for the readers of their rule.

    What was committed in clear remains in git's history, and is to be changed.
    """
    for path in files:
        sops.Repository.open(path.absolute().parent).encrypt(path.absolute())
        say(f"{path}: encrypted")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@identity_option
def decrypt(file: Path, identity: Path | None) -> None:
    """Write what a file holds to standard output, in clear."""
    style = sops.format_of(file)
    document = sops.load(file.read_bytes(), _identities(identity), format=style, name=str(file))
    sys.stdout.buffer.write(sops.to_plain(document, format=style))


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@identity_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def accept(files: tuple[Path, ...], identity: Path | None, yes: bool) -> None:
    """Seal secrets again whose files were edited with sops: labels, dates or stages.

    SOPS's own MAC vouches for the values, and you vouch for the rest, which is shown.
    """
    identities = _identities(identity)
    for path in files:
        document = sops.load(path.read_bytes(), identities, format=sops.format_of(path), name=str(path))
        if not sops.is_secret(document.data):
            raise ConfigError(f"{path} is not the file of one secret; `sops` and shiftable need no seal there")
        if sops.seal_fits(document.data):
            say(f"{path}: it is sealed")
            continue
        tag_key = Masked(os.urandom(32))
        content = sops.dump(document)
        say(sops.shown(content, identities, format="yaml", tag_key=tag_key, policy=None))
        if not yes:
            if not sys.stdin.isatty():
                raise ConfigError(f"{path}: without a terminal, say --yes")
            click.confirm(f"is this what {path} should say?", abort=True)
        sops.reseal(path, identities)
        say(f"{path}: sealed")


# git


@click.command("git-setup")
@root_option
def git_setup(root: Path) -> None:
    """Let git show what changed in encrypted files, and merge them by their values, in this clone.

    The settings go into .git/config, so each clone needs it once; .gitattributes is to be committed.
    """
    repository = sops.Repository.open(root)
    policy = _policy(repository)
    program = shlex.quote(shutil.which("shiftable") or str(Path(sys.argv[0]).absolute()))
    for name, value in (
        ("diff.shiftable.textconv", f"{program} secrets textconv"),
        ("diff.shiftable.cachetextconv", "false"),
        ("merge.shiftable.name", "shiftable: merge encrypted files by their values"),
        ("merge.shiftable.driver", f"{program} secrets merge %O %A %B %P"),
    ):
        _git(repository.root, "config", name, value)
    lines = [f"{_pattern(rule.path)} diff=shiftable merge=shiftable" for rule in policy.rules]
    file = repository.root / ".gitattributes"
    text = file.read_text() if file.exists() else ""
    before, _, rest = text.partition(f"{_BEGIN}\n")
    after = rest.partition(f"{_END}\n")[2]
    file.write_text(f"{before}{_BEGIN}\n{''.join(f'{line}{os.linesep}' for line in lines)}{_END}\n{after}")
    say(f"git shows and merges {', '.join(rule.path for rule in policy.rules)}; commit .gitattributes")


def _pattern(path: str) -> str:
    """Return a rule's path as .gitattributes has it."""
    pattern = f"/{path}**" if path.endswith("/") else f"/{path}"
    quoted = pattern.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"' if quoted != pattern or " " in pattern else pattern


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode:
        raise ConfigError(f"git {arguments[0]} failed: {done.stderr.strip() or 'no reason was given'}")
    return done.stdout.strip()


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--reveal", is_flag=True, help="Show the values; without it, a tag that changes when the value does.")
@identity_option
def textconv(file: Path, reveal: bool, identity: Path | None) -> None:
    """Show an encrypted file as text for `git diff`: keys, labels and versions, and *** for each value.

    The tag behind *** is made with a key of this clone and says nothing elsewhere.
    """
    content = file.read_bytes()
    try:
        git_dir = Path(_git(Path.cwd(), "rev-parse", "--path-format=absolute", "--git-common-dir"))
        key = sops.tag_key(git_dir)
    except ConfigError:  # there is no clone
        key = Masked(os.urandom(32))
    try:
        policy = sops.Policy.find(Path.cwd())
    except ConfigError:  # it is being merged itself
        policy = None
    try:
        text = sops.shown(
            content,
            _identities(identity),
            format=sops.format_of(file),
            tag_key=key,
            policy=policy,
            reveal=reveal,
        )
    except ShiftableError as exc:  # git shows no diff at all if this fails
        text = f"# {shown(str(exc))}; {len(content)} bytes are not shown\n"
    click.echo(text, nl=False)


@click.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("ours", type=click.Path(path_type=Path, exists=True))
@click.argument("theirs", type=click.Path(path_type=Path, exists=True))
@click.argument("name")
@identity_option
def merge(base: Path, ours: Path, theirs: Path, name: str, identity: Path | None) -> None:
    """Merge an encrypted file by its values, as git asks: the result replaces OURS.

    Conflicts are named without values; OURS is then left as it is, and git keeps the file unmerged.
    """
    before = base.read_bytes() if base.exists() else b""
    result = sops.merged(
        before or None, ours.read_bytes(), theirs.read_bytes(), _identities(identity), format=sops.format_of(name)
    )
    for place in result.conflicts:
        click.echo(f"CONFLICT in {shown(name)}: both sides changed {shown(place)}", err=True)
    if result.content is None:
        click.echo(
            "the file is left as on your side; change it, or take the other with `git checkout --theirs`", err=True
        )
        sys.exit(1)
    ours.write_bytes(result.content)


commands: tuple[click.Command, ...] = (
    recipients,
    encrypt,
    decrypt,
    accept,
    verify,
    scan,
    git_setup,
    textconv,
    merge,
)
