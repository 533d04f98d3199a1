"""Laws to start from: fits give back what they were made from, and the simplest that holds is chosen."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import xarray as xr
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.laws.special import concentration_from_length
from circsde.matching.chain import Chain
from circsde.models import checkpoint
from circsde.sampling.choose_start import candidates, choose, compare, load_law, save_law, simulated
from circsde.sampling.start_laws import (
    Coherent,
    Independent,
    Law,
    Resampled,
    components,
    fit_coherent,
    fit_independent,
    fit_patterned,
    settled,
)
from circsde.schedule import Schedule
from circsde.torus import difference

IMAGE, COLOUR, ROW = (8, 8), (3, 6, 6), (5,)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("fit", [fit_independent, fit_coherent, fit_patterned, Resampled.of])
def test_no_law_is_fitted_to_states_that_are_not_finite(fit: Callable[[Tensor], Law]) -> None:
    """The 16-bit integers of resampled states would hold 0 for NaN."""
    states = torch.zeros(20, *IMAGE)
    states[3, 1, 2] = math.nan
    with pytest.raises(ValueError, match="must be finite, but 1 of 20 are not, the first of them row 3"):
        fit(states)


def least_p(law: Law, states: Tensor, seed: int = 0) -> float:
    """The least p-value of three tests; below 0.005 by chance with a probability of at most 0.015."""
    drawn = law.sample((len(states),), generator=generator(seed))
    return min(p for _, p in compare(drawn, states, generator=generator(seed)).values())


def fields(channels: int, count: int = 4000) -> Tensor:
    """Means of ``e^{i theta}`` per sample: two clusters for each channel, so that they are not normal."""
    side = torch.randint(2, (count, 1), generator=generator(3)).double() * 2 - 1
    first = 0.3 + 0.1 * side.expand(-1, channels)
    return torch.cat((first, 0.2 * side * torch.randn(count, channels, generator=generator(4), dtype=torch.float64)), 1)


def ridges(count: int, seed: int) -> Tensor:
    """Images of phases whose mean of ``e^{i theta}`` is 0.3 and a normal wave, in its sine, of wave number 2."""
    g = generator(seed)
    x = torch.arange(8) * (2 * math.pi * 2 / 8)
    amplitudes = 0.15 * torch.randn(2, count, 1, 1, dtype=torch.float64, generator=g)
    wave = (amplitudes[0] * torch.cos(x) + amplitudes[1] * torch.sin(x)).expand(-1, 8, 8)
    along = torch.full_like(wave, 0.3)
    concentration = concentration_from_length(torch.hypot(wave, along).clamp(max=0.99))
    return VonMises(torch.atan2(wave, along), concentration).sample(generator=g)


@pytest.mark.parametrize("event", [IMAGE, COLOUR, ROW])
def test_a_coherent_law_has_the_means_that_it_was_given(event: tuple[int, ...]) -> None:
    """Over 4000 samples, to 5 standard errors."""
    channels = 3 if len(event) == 3 else 1
    given = fields(channels)
    theta = Coherent(event, given).sample((4000,), generator=generator())
    assert theta.shape == (4000, *event)
    means = components(theta).flatten(2).mean(2)
    error = 5 * (means.std(0) ** 2 + given.std(0) ** 2).sqrt() / 4000**0.5
    assert ((means.mean(0) - given.mean(0)).abs() < error).all()


@pytest.mark.parametrize("event", [IMAGE, COLOUR])
def test_a_coherent_fit_is_not_told_from_coherent_states_and_an_independent_one_is(event: tuple[int, ...]) -> None:
    law = Coherent(event, fields(3 if len(event) == 3 else 1))
    states, fresh = (law.sample((n,), generator=generator(s)) for n, s in ((2000, 5), (500, 6)))
    assert least_p(fit_coherent(states), fresh) > 0.005
    assert least_p(fit_independent(states), fresh) == 0.005


def test_a_patterned_fit_keeps_the_waves_in_the_states_and_a_coherent_one_does_not() -> None:
    states, fresh = ridges(2000, 0), ridges(500, 1)
    drawn: dict[str, Law] = {"patterned": fit_patterned(states), "coherent": fit_coherent(states)}
    p = {
        name: compare(law.sample((500,), generator=generator(2)), fresh, generator=generator())["pattern"][1]
        for name, law in drawn.items()
    }
    assert p["patterned"] > 0.005
    assert p["coherent"] == 0.005


def test_a_patterned_fit_of_states_without_a_pattern_has_none() -> None:
    """The edge lets through less than one eigenvalue in a hundred of 128."""
    states = VonMises(torch.zeros(IMAGE, dtype=torch.float64), 1.0).sample((2000,), generator=generator())
    assert (fit_patterned(states).root.abs().amax((2, 3, 4)) > 0).sum() <= 1


def test_resampled_states_are_the_states_to_sixteen_bits() -> None:
    states = VonMises(torch.zeros(IMAGE, dtype=torch.float64), 0.5).sample((9,), generator=generator())
    drawn = Resampled.of(states).sample((50,), generator=generator(1))
    nearest = difference(drawn[:, None], states[None]).abs().flatten(2).amax(2).amin(1)
    assert nearest.max() <= 0.5 * math.pi / 32767 + 1e-12


@pytest.mark.parametrize(
    ("coupling", "event"), [(NoCoupling(), IMAGE), (GlobalCoupling(), COLOUR), (LocalCoupling(2), IMAGE)]
)
def test_the_settled_law_has_the_mean_of_its_theory(coupling: Coupling, event: tuple[int, ...]) -> None:
    """Exact for a finite number of globally coupled phases; 5 standard errors of the means over samples."""
    sde = KuramotoSDE(event, coupling, Schedule.constant(coupling=1.0, reference=0.8), reference_phase=0.4)
    theta = settled(sde).sample((2000,), generator=generator())
    along = difference(theta, torch.tensor(0.4, dtype=torch.float64)).cos().flatten(1).mean(1)
    if isinstance(coupling, GlobalCoupling):
        expected = MeanFieldGibbs(108, 1.0, 0.8, 1.0).mean_resultant_length
    else:
        expected = sde.terminal_law().mean_resultant_length
    assert abs(along.mean() - expected) < 5 * along.std() / 2000**0.5


def chain(event: tuple[int, ...], horizon: float) -> Chain:
    sde = KuramotoSDE(event, NoCoupling(), Schedule.constant(reference=1.0, horizon=horizon))
    return Chain.uniform(sde, 5 * round(horizon / 0.5))


@pytest.mark.parametrize("event", [IMAGE, ROW])
def test_a_long_horizon_is_settled_and_a_short_one_is_not(event: tuple[int, ...]) -> None:
    """What e^{-t} leaves of data that is one phase for a whole sample is a field that is coherent over it."""
    phase = math.pi * torch.rand(300, *(1,) * len(event), generator=generator())
    data = phase.expand(-1, *event)
    law, table = choose(chain(event, 12.0), data, fitted=800, compared=200)
    assert table.attrs["chosen"] == "settled"
    assert isinstance(law, Independent)
    law, table = choose(chain(event, 0.5), data, fitted=800, compared=200)
    assert table.attrs["chosen"] in ("coherent", "patterned", "resampled")
    assert float(table["p_value"].sel(candidate="settled").min()) == 0.005
    assert float(table["p_value"].sel(candidate="independent", test="order")) == 0.005


def test_simulated_states_depend_on_their_index_only() -> None:
    data = torch.zeros(4, *IMAGE)
    together = simulated(chain(IMAGE, 1.0), data, 40)
    assert torch.equal(together, simulated(chain(IMAGE, 1.0), data, 40, batch_size=7))
    assert torch.equal(together, simulated(chain(IMAGE, 1.0), lambda count, _: torch.zeros(count, *IMAGE), 40))


@pytest.mark.parametrize("event", [IMAGE, COLOUR, ROW])
def test_laws_are_kept_in_a_file_and_draw_the_same_from_it(event: tuple[int, ...], tmp_path: Path) -> None:
    sde = KuramotoSDE(event, GlobalCoupling(), Schedule.published(20))
    states = VonMises(torch.zeros(event, dtype=torch.float64), 1.0).sample((50,), generator=generator())
    _, table = choose(Chain.uniform(sde, 5), states.float(), fitted=60, compared=20, permutations=19)
    laws = candidates(Chain.uniform(sde, 5), states)
    assert list(laws) == list(table["candidate"].values)
    for name, law in laws.items():
        save_law(law, table, tmp_path / f"{name}.safetensors")
        again, told = load_law(tmp_path / f"{name}.safetensors")
        assert type(again) is type(law)
        assert torch.equal(*(x.sample((3,), generator=generator(1)) for x in (law, again)))
        assert told.identical(table)


def test_a_file_that_holds_no_law_is_refused(tmp_path: Path) -> None:
    checkpoint.save({"weights": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no law to start from"):
        load_law(tmp_path / "other.safetensors")
    save_law(Independent(IMAGE, torch.tensor(0.0), 1.0), compared_table(), tmp_path / "law.safetensors")
    whole = (tmp_path / "law.safetensors").read_bytes()
    (tmp_path / "law.safetensors").write_bytes(whole[:-2])
    with pytest.raises(ValueError, match="only a part of one"):
        load_law(tmp_path / "law.safetensors")


def compared_table() -> xr.Dataset:

    return xr.Dataset(attrs={"chosen": "independent"})


def test_a_candidate_is_given_one_error_probability_for_all_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of three p-values of 0.02 each is 0.06 (Bonferroni), which is not below 0.05; of 0.01 each it is."""
    for p, chosen in ((0.02, "settled"), (0.01, "resampled")):
        rows = {name: (1.0, p) for name in ("marginal", "order", "pattern")}
        monkeypatch.setattr("circsde.sampling.choose_start.compare", lambda *_, rows=rows, **__: rows)
        _, table = choose(chain(ROW, 1.0), torch.zeros(4, *ROW), fitted=20, compared=10)
        assert table.attrs["chosen"] == chosen
