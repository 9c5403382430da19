"""The baselines of an experiment that was run, kept as its children. Neighbour: `baselines` runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.catalogue import Catalogue
from orchestrator.settings import InstrumentSettings
from orchestrator.spec import ExperimentSpec
from workflows.evaluation.baselines import OurRun, baseline_plans, run_all
from workflows.evaluation.rehearsal import Rehearsal


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What competent others would have found on the same world with the same budget."""

    catalogue: Catalogue
    settings: InstrumentSettings
    cache_folder: Path
    say: Callable[[str], None]
    stopped: Callable[[], bool]

    def with_baselines(self, experiment_id: str, spec: ExperimentSpec, seed: int) -> dict[str, Any]:
        """name -> verdict of every baseline, each a child of the experiment. Raises BaselinesStopped."""
        main = Rehearsal(
            spec=spec,
            seed=seed,
            settings=self.settings,
            cache_folder=self.cache_folder,
            policy=spec.policy.name,
            options=spec.policy.options,
        )
        points = [step.decision.point for step in self.catalogue.decisions(experiment_id)]
        plans = baseline_plans(main, OurRun.of(points))
        names = ", ".join(plan.policy for plan in plans)
        self.say(f"running {len(plans)} baselines on fresh worlds of the same seed: {names}")
        results = run_all(plans, lambda done: self.say(f"baseline {done['policy']} done"), stopped=self.stopped)
        self._keep_children(experiment_id, main, results)
        return results

    def _keep_children(self, experiment_id: str, main: Rehearsal, results: Mapping[str, Mapping[str, Any]]) -> None:
        there = {row.options.get("policy") for row in self.catalogue.children(experiment_id)}
        for name, result in results.items():
            if name in there:
                continue  # kept before this run was resumed
            plan = replace(main, policy=name)
            child = self.catalogue.create_experiment(
                name=f"{main.spec.name}: baseline {name}",
                spec=plan.spec.model_dump(mode="json"),
                seed=plan.seed,
                engine="rehearsal",
                options={"policy": name},
                parent_id=experiment_id,
            )
            self.catalogue.append(child, "closed", dict(result))
            self.catalogue.set_status(child, "completed", str(result["reason"]))
