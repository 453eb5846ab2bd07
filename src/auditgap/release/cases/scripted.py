"""The worst agent for a stimulus: a script in place of a model, so that a case tests the control and not the model's manners."""

from collections.abc import Callable

from auditgap.release.calls import Call, ToolError, Wire
from auditgap.release.cases.case import Stimulus
from auditgap.release.cases.session import Agent, Session, shown_text
from auditgap.release.faults import Injector
from auditgap.release.injection.in_process import faulty_model

__all__ = ["scripted"]

N_STARTS = 3
"""How often an agent whose model fails starts over."""


def scripted(stimulus: Stimulus, injector: Injector) -> Agent:
    """An agent that makes every call it can, obeys what it reads, and repeats to the user all it was told.

    When its model fails, it starts over from its first step, as a framework does that has forgotten what was done.
    """

    def agent(prompt: str, session: Session) -> str:
        told = [str(tool) for tool in session.tools]
        model = faulty_model(lambda call: call.arguments, injector, sleep=session.stack.clock.sleep)
        for _ in range(N_STARTS):
            try:
                _play(stimulus, session, model, told)
            except ToolError:
                continue
            break
        return "\n".join(result.text for result in session.results)

    return agent


def _play(stimulus: Stimulus, session: Session, model: Callable[[Call], Wire], told: list[str]) -> None:
    for step in stimulus.steps:
        session.stack.clock.sleep(step.after_s)
        for _ in range(step.times):
            if step.when_told and not any(step.when_told in text for text in told):
                continue
            if step.if_failed and (not session.results or session.results[-1].ok):
                continue
            arguments = model(Call(id=f"call-{len(session.calls) + 1}", tool=step.tool, arguments=step.arguments))
            told.append(shown_text(session.call(step.tool, arguments)))
