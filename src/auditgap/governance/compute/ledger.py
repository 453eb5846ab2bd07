"""One or more models with their relations, checked as a whole, and the FLOP of each line."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from auditgap.errors import UsageError, nearest
from auditgap.governance.compute.lineage import circle, relations
from auditgap.governance.compute.quantity import Estimate, amount, plus, times
from auditgap.governance.compute.records import FORWARD_ONLY, Line, ModelLedger, Parameters
from auditgap.governance.document import parse
from auditgap.records import Record

__all__ = ["Ledger", "LineFlop", "line_flop", "one_run", "read_ledger"]


class Ledger(Record):
    """One or more models; relations lead to models of the same ledger and never in a circle."""

    models: tuple[ModelLedger, ...]

    @property
    def by_name(self) -> dict[str, ModelLedger]:
        """The models by name, in the order of the file."""
        return {model.name: model for model in self.models}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [model.name for model in self.models]
        if empty := [model.name for model in self.models if not model.lines] or ([] if names else ["models"]):
            raise ValueError(
                f"{empty[0]}: expected at least one entry, got none; add a line such as "
                "{name: pre-training, activity: update, tokens: 2T}"
            )
        for kind, listed in (("model", names), *((f"line of {m.name}", [line.name for line in m.lines]) for m in self.models)):
            if twice := next((name for name in listed if listed.count(name) > 1), None):
                raise ValueError(f"expected every {kind} to have its own name, got '{twice}' twice; rename one")
        for said in relations(self.models):
            if said.target not in names:
                raise ValueError(f"{said.where}: expected a model of this file, got '{said.target}'{nearest(said.target, names)}")
        for model in self.models:
            for line in model.lines:
                if line.tokens is not None and _parameters(self, model, line) is None:
                    raise ValueError(
                        f"{model.name}.{line.name}: expected parameters, got none; add them to the line or its model"
                    )
        if found := circle(self.models):
            raise ValueError(
                f"expected models that descend from earlier ones, got a circle: {' <- '.join(found)}; enter each version as a "
                "model of its own, and leave `model` out where a model generates for itself"
            )
        return self


class LineFlop(Record):
    """FLOP of one line."""

    active: Estimate
    """With the parameters that work on each token: the estimate that is compared with thresholds."""
    total: Estimate
    """As if every parameter worked on every token: the upper end for a mixture of experts, the same for a dense model."""


def line_flop(ledger: Ledger, model: ModelLedger, line: Line) -> LineFlop:
    """FLOP of a line that is not a link: stated, from hardware, or FLOP per parameter and token x parameters x tokens x epochs.

    6 FLOP per parameter and token: a multiply-add is 2, and training goes forward once and backward at twice the cost.
    Source: Commission guidelines C(2025) 7719, annex; https://epoch.ai/data/ai-models-documentation/estimation.
    """
    if line.flop is not None:
        return LineFlop(active=line.flop, total=line.flop)
    if line.hardware is not None:
        spent = plus(*(period.flop() for period in line.hardware))
        return LineFlop(active=spent, total=spent)
    parameters = _parameters(ledger, model, line)
    assert parameters is not None and line.tokens is not None  # a Line has one method, and a Ledger has the parameters for it
    each = line.flop_per_parameter_token or (2.0 if line.activity in FORWARD_ONLY else 6.0)
    passes = times(Estimate.of(each), line.tokens, line.epochs)
    return LineFlop(active=times(passes, parameters.per_token), total=times(passes, parameters.total))


def _parameters(ledger: Ledger, model: ModelLedger, line: Line) -> Parameters | None:
    """Whose parameters work on a line: stated on it, else those of the generating model, else the model's own."""
    worker = ledger.by_name[line.model] if line.model is not None else model
    return line.parameters or worker.parameters


def read_ledger(path: Path) -> Ledger:
    """A ledger from its YAML file.

    Raises:
        PlanError: a line does not say what it must; the message names model, line and field, what was expected, and what to do.
    """
    return parse(path, Ledger)


def one_run(source: Path, *, total: float, active: float, tokens: str) -> Ledger:
    """The ledger of one training run of a model whose parameters are known; named after its config file or folder.

    Raises:
        UsageError: `tokens` is not a number such as 14.8T.
    """
    try:
        seen = Estimate.of(amount(tokens, "tokens"))
    except ValueError as error:
        raise UsageError(f"--tokens: {error}, got '{tokens}'") from None
    name = source.resolve().parent.name if source.name == "config.json" else source.resolve().stem
    parameters = Parameters(total=Estimate.of(total), active=Estimate.of(active))
    training = Line(name="training", activity="update", tokens=seen)
    return Ledger(models=(ModelLedger(name=name, parameters=parameters, lines=(training,)),))
