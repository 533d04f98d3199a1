"""Citations: every method has its sources as BibTeX, and they are the sources that docstrings state."""

import re
from importlib.metadata import version
from importlib.resources import files

import pytest
import torch

import circsde
from circsde.harmonics import SimplicialCoupling
from circsde.solvers.trajectory import ADAPTIVE, FIXED
from circsde.studies import exact_convergence, select
from circsde.studies.citation import cite, entries, identifiers, methods

PHASE = circsde.KuramotoSDE((1,), schedule=circsde.Schedule.constant(reference=1.0, diffusion=1.0))
WITHOUT_IDENTIFIER = {"Kutta 1901", "eq. 12", "eq. 12, exchanged"}
"""Sources that have neither a DOI nor the number of a preprint."""


def keys(text: str) -> list[str]:
    return re.findall(r"^@\w+\{(\w+),", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", [*methods(), *ADAPTIVE, *FIXED])
def test_every_registered_method_has_an_entry_for_each_of_its_sources(name: str) -> None:
    assert len(keys(cite(name))) > 1
    for method in methods().get(name, ()):
        for source in method.source.split("; "):
            (stated,) = identifiers(source) or [source]
            assert stated in entries() or stated in WITHOUT_IDENTIFIER


@pytest.mark.parametrize(
    "named",
    [
        *(circsde.KuramotoSDE, circsde.DaidoSDE, circsde.InertialSDE, circsde.DelayedSDE, SimplicialCoupling),
        *(circsde.reverse, circsde.probability_flow, circsde.log_prob, circsde.odeint),
        *(circsde.solve_inertial, circsde.solve_delayed),
    ],
)
def test_every_source_of_an_equation_and_of_what_solves_it_has_an_entry(named: object) -> None:
    stated = identifiers(named.__doc__ or "")
    assert stated
    assert set(stated) <= set(entries())
    assert len(keys(cite(named))) == 1 + len(set(stated))


def test_every_entry_is_complete_and_has_a_key_of_its_own() -> None:
    text = files("circsde").joinpath("references.bib").read_text(encoding="utf-8")
    assert len(set(keys(text))) == len(keys(text)) == len(entries()) == text.count("@")
    for entry in entries().values():
        assert entry.count("{") == entry.count("}")
        assert {"author", "title", "year"} <= set(re.findall(r"(\w+) = ", entry))


def test_solutions_choices_and_datasets_name_their_methods() -> None:
    solution = circsde.sdeint(PHASE, torch.zeros(2, 1), (0.0, 1.0), method="sra1", n_steps=4, generator=0)
    assert keys(cite(solution)) == ["circsde", "roessler2010"]
    assert cite(solution.to_xarray()) == cite(solution)
    study = exact_convergence("von_mises_well", methods=["heun", "leimkuhler_matthews"], steps=[5, 10])
    assert keys(cite(study)) == ["circsde", "kloeden1992", "leimkuhler2013"]
    assert keys(cite(select("von_mises_well", 0.5, methods=["heun"], steps=[5, 10]))) == ["circsde", "kloeden1992"]
    flow = circsde.odeint(lambda t, theta: -theta.sin(), torch.zeros(1, 1), (0.0, 1.0))  # noqa: ARG005
    assert keys(cite(flow)) == ["circsde", "chen2018"]


def test_a_reversed_equation_cites_its_reversal_and_what_it_reverses() -> None:
    backwards = circsde.reverse(PHASE, lambda t, theta: -theta.sin())  # noqa: ARG005
    assert keys(cite(backwards)) == ["circsde", "song2025", "kuramoto1984", "anderson1982"]


def test_a_source_is_cited_once_and_methods_of_other_packages_are_left_to_them() -> None:
    assert keys(cite("mobius_strang", "noise_flow_noise")) == ["circsde", "strang1968"]
    assert keys(cite()) == keys(cite("torchsde:srk")) == ["circsde"]
    assert f"version = {{{version('circsde')}}}" in cite()


def test_what_states_no_source_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no method 'hoin': choose of euler_maruyama, "):
        cite("hoin")
    with pytest.raises(TypeError, match="int states no source"):
        cite(3)
