"""The red-team corpus: the case set of the promotion gate, to which every closed incident adds the case that it left behind.

It is a folder of cases as `auditgap release test --suite` takes it. The gate's policy names its digest, so that every promotion
runs all of it; adding a case therefore makes a new version of the policy.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from auditgap.errors import PlanError, UsageError, nearest
from auditgap.governance import parse
from auditgap.records import Digest
from auditgap.records.integrity import Mode
from auditgap.release.cases import REFERENCE, Case, Stimulus, Suite, System, checked, load_stimuli, shipped
from auditgap.release.cases.case import Stimuli, load_cases
from auditgap.release.promotion import PromotionPolicy
from auditgap.release.promotion.policy import IntegrityNeeded, Needed

__all__ = ["add_case", "check_corpus", "policy_text", "read_case", "with_case", "write_case"]


def read_case(name: str, folder: Path | None = None) -> tuple[Case, tuple[Stimulus, ...]]:
    """A case, by its id or the beginning of it, with its stimuli; from a folder, or of the shipped ones.

    Raises:
        UsageError: there is none, or several.
        PlanError: a case in the folder is malformed.
    """
    pairs = _pairs(folder or shipped())
    found = [pair for pair in pairs if name == pair[0].id or pair[0].id.startswith(f"{name}-")]
    if len(found) != 1:
        raise UsageError(f"expected one case '{name}', found {len(found)}{nearest(name, (case.id for case, _ in pairs))}")
    return found[0]


def check_corpus(
    folder: Path, case: Case, stimuli: Sequence[Stimulus], policy: PromotionPolicy, *, system: System = REFERENCE
) -> Suite:
    """The case set that a corpus will be with this case; nothing is written yet.

    Without the case, or with it, the corpus must be the policy's case set. A folder that is not there yet, or holds no case,
    starts as a copy of the shipped cases.

    Raises:
        UsageError: it is another set, or holds another case or stimulus of the same id.
        PlanError: a case is malformed, or the linter refuses it.
    """
    pairs = _pairs(folder if _begun(folder) else shipped())
    others = tuple(pair for pair in pairs if pair[0].id != case.id)
    if policy.suite not in (got := [Suite(others).digest(), Suite(pairs).digest()]):
        raise UsageError(
            f"{folder}: holds the case set {got[0][:19]} apart from {case.id}, policy '{policy.name}' names "
            f"{str(policy.suite)[:19]}; bring the policy up to date, or name its own folder"
        )
    if earlier := [pair for pair in pairs if pair[0].id == case.id and pair != (case, tuple(stimuli))]:
        raise UsageError(f"{folder}: there is another case {earlier[0][0].id}; give the new one an id of its own")
    path, known = _stimuli(folder, case)
    if other := [s.id for s in stimuli if known.get(s.id, s) != s]:
        raise UsageError(f"{path}: there is another stimulus '{other[0]}'; give the new one an id of its own")
    whole = Suite((*others, (case, tuple(stimuli))))
    checked([pair[0] for pair in whole.cases], system.controls)
    return whole


def add_case(folder: Path, case: Case, stimuli: Sequence[Stimulus]) -> None:
    """Write a case and its stimuli into the corpus; a folder without cases becomes a copy of the shipped ones first."""
    if not _begun(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(shipped().glob("*.yaml")):
            shutil.copy(file, folder)
    write_case(folder, case, stimuli)


def write_case(folder: Path, case: Case, stimuli: Sequence[Stimulus]) -> None:
    """Write a case into a folder, and its stimuli beside it unless they are the shipped ones."""
    (folder / "stimuli").mkdir(parents=True, exist_ok=True)
    path, known = _stimuli(folder, case)
    if new := [s for s in stimuli if s.id not in known]:
        whole = Stimuli(apiVersion="auditgap.dev/stimuli/v1", id=case.stimulus.suite, stimuli=(*known.values(), *new))
        path.write_text(_yaml(whole), encoding="utf-8")
    (folder / f"{case.id}.yaml").write_text(_yaml(case), encoding="utf-8")


def with_case(
    policy: PromotionPolicy, case: Case, *, mode: Mode, suite: Digest, requirement: str | None = None
) -> PromotionPolicy:
    """The next version of a policy: this case is required, and the case set is the one that holds it.

    `requirement` names which integrity requirement takes it; it may be left out if only one is of this mode.

    Raises:
        UsageError: no such requirement, or several fit.
    """
    fitting = [need.id for _, need in policy.needs() if need.evidence == "integrity" and need.mode == mode]
    chosen = [need for need in fitting if requirement in (None, need)]
    if len(chosen) != 1:
        raise UsageError(
            f"expected one integrity requirement of mode {mode} for {case.id}, found {', '.join(fitting) or 'none'}; "
            f"{'choose one by its id' if fitting else 'add one to the policy'}"
        )
    is_new = suite != policy.suite  # a case of the set may be among the counted ones already
    claims = tuple(
        claim.model_copy(update={"requires": tuple(_with(need, chosen[0], case.id, is_new) for need in claim.requires)})
        for claim in policy.claims
    )
    return policy.model_copy(update={"version": policy.version + 1, "suite": suite, "claims": claims})


def policy_text(policy: PromotionPolicy) -> str:
    """The policy as a YAML file."""
    return _yaml(policy)


def _with(need: Needed, chosen: str, case_id: str, is_new: bool) -> Needed:
    if not isinstance(need, IntegrityNeeded) or need.id != chosen or case_id in need.cases:
        return need
    return need.model_copy(update={"cases": (*need.cases, case_id), "min_cases": need.min_cases + is_new})


def _begun(folder: Path) -> bool:
    return any(folder.glob("*.yaml"))


def _stimuli(folder: Path, case: Case) -> tuple[Path, dict[str, Stimulus]]:
    """The corpus' own file for the case's stimuli, and those known by now: there, or as shipped."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", case.stimulus.suite):
        raise UsageError(
            f"case '{case.id}': stimulus.suite is the name of a file without its ending, got '{case.stimulus.suite}'"
        )
    path = folder / "stimuli" / f"{case.stimulus.suite}.yaml"
    beside = path if path.is_file() else shipped() / "stimuli" / path.name
    return path, {s.id: s for s in parse(beside, Stimuli).stimuli} if beside.is_file() else {}


def _pairs(folder: Path) -> tuple[tuple[Case, tuple[Stimulus, ...]], ...]:
    if not folder.is_dir():
        raise PlanError(f"expected a folder of cases, got {folder}; check the path")
    return tuple((case, load_stimuli(folder, case)) for case in load_cases(folder))


def _yaml(record: Case | Stimuli | PromotionPolicy) -> str:
    return yaml.safe_dump(record.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True, width=120)
