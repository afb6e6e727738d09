"""Folding before export. Promises: what is folded gives the same answer, and what does not is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from saccade.export.convert.folding import FoldedResult, fold_network
from saccade.export.errors import GraphError
from saccade.export.recipe import FoldingSpec

IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def trained(module: nn.Module) -> nn.Module:
    """Statistics and scales that folding must not take for the identity."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        mean, variance = getattr(part, "running_mean", None), getattr(part, "running_var", None)
        if isinstance(mean, Tensor) and isinstance(variance, Tensor):
            mean.normal_(0, 0.2, generator=generator)
            variance.uniform_(0.5, 2.0, generator=generator)
            part.weight.data.uniform_(0.5, 2.0, generator=generator)  # type: ignore[operator, union-attr]
            part.bias.data.normal_(0, 0.2, generator=generator)  # type: ignore[operator, union-attr]
    return module.eval().requires_grad_(False)


def folded(module: nn.Module, images: Tensor = IMAGES, **settings: object) -> tuple[FoldedResult, Tensor, Tensor]:
    with torch.no_grad():
        before = module(images)
        result = fold_network(module, FoldingSpec.model_validate(settings), images[:1])
        return result, before, result.module(images)


def norms_left(module: nn.Module) -> int:
    return sum("BatchNorm" in type(part).__name__ for part in module.modules())


def summary(result: FoldedResult) -> dict[str, int]:
    return {proof.name: proof.layers for proof in result.proofs}


def test_batch_norm_moves_into_convolutions_and_linear_layers() -> None:
    module = trained(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(400, 5),
            nn.BatchNorm1d(5),
        )
    )

    result, before, after = folded(module)

    assert summary(result) == {"batch_norm": 2}
    assert norms_left(module) == 0
    assert result.proofs[0].relative_error < 1e-6
    torch.testing.assert_close(after, before)


class NormOfRows(nn.Module):
    """Tokens normalised as one long batch, as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 6, bias=False)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.flatten(1, 2))
        out: Tensor = self.norm(x.flatten(0, 1)).reshape_as(x)
        return out


def test_batch_norm_behind_flattened_tokens_moves_into_the_linear_layer() -> None:
    module = trained(NormOfRows())

    result, before, after = folded(module)

    assert summary(result) == {"batch_norm": 1}
    torch.testing.assert_close(after, before)


class FrozenBatchNorm2d(nn.Module):
    """As detection libraries have it: buffers, and an epsilon that only the code knows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.5), ("bias", 0.3), ("running_mean", 0.2), ("running_var", 2.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-3).rsqrt()  # type: ignore[operator]
        shift = self.bias - self.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def test_frozen_batch_norm_with_an_unknown_epsilon_is_folded() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4)).eval().requires_grad_(False)

    result, before, after = folded(module)

    assert norms_left(module) == 0
    torch.testing.assert_close(after, before)
    assert summary(result) == {"batch_norm": 1}


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.norm(x) + x
        return out


class CalledTwice(ReadTwice):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(self.conv(x)))
        return out


class ReturnedToo(ReadTwice):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.stack([self.norm(x), x])


@pytest.mark.parametrize("kind", [ReadTwice, CalledTwice, ReturnedToo])
def test_batch_norm_stays_where_something_else_reads_the_convolution(kind: type[nn.Module]) -> None:
    module = trained(kind())

    result, before, after = folded(module)

    assert result.proofs == ()
    assert norms_left(module) == 1
    torch.testing.assert_close(after, before)


def test_nothing_is_folded_when_the_recipe_says_so() -> None:
    module = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))

    result, _, _ = folded(module, batch_norm=False)

    assert result.proofs == ()


def test_network_that_does_not_accept_float64_is_left_alone() -> None:
    module = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    module.accepts_float64 = False  # type: ignore[assignment]

    result, _, _ = folded(module)

    assert result.proofs == ()


class TwoHeads(nn.Module):
    """Both heads read the same features, their answers are averaged, as in a distilled LeViT."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 5)
        self.head_dist = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        out: Tensor = (self.head(x) + self.head_dist(x)) / 2
        return out


def test_averaged_heads_become_one() -> None:
    module = TwoHeads().eval().requires_grad_(False)

    result, before, after = folded(module)

    assert summary(result) == {"summed_linear": 1}
    assert sum(isinstance(part, nn.Linear) for part in module.modules()) == 1
    torch.testing.assert_close(after, before)


class Branches(nn.Module):
    """Two kernels side by side; `reparameterize` leaves one. `error` is what a wrong merge would add."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.large = nn.Conv2d(3, 3, 3, padding=1)
        self.small: nn.Conv2d | None = nn.Conv2d(3, 3, 1)
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.large(x)
        return out if self.small is None else out + self.small(x)

    def reparameterize(self) -> None:
        assert self.small is not None
        assert self.large.bias is not None
        self.large.weight.data[:, :, 1:2, 1:2] += self.small.weight.data + self.error
        self.large.bias.data += self.small.bias.data  # type: ignore[union-attr]
        self.small = None


def test_reparametrisation_is_found_by_its_name() -> None:
    module = nn.Sequential(Branches(), nn.ReLU(), Branches()).eval().requires_grad_(False)

    result, before, after = folded(module)

    assert summary(result) == {"reparameterize": 2}
    torch.testing.assert_close(after, before)


def test_wrong_reparametrisation_is_refused_by_name() -> None:
    module = nn.Sequential(nn.ReLU(), Branches(error=0.01)).eval().requires_grad_(False)

    with pytest.raises(GraphError, match=r"reparameterize\) of 1 changes its answer by"):
        folded(module)


def test_hooks_stay_uncalled_when_the_recipe_says_so() -> None:
    module = nn.Sequential(Branches(error=0.01)).eval().requires_grad_(False)

    result, _, _ = folded(module, hooks=False)

    assert "reparameterize" not in summary(result)


class NamedByTheRecipe(Branches):
    def melt(self) -> nn.Module:
        super().reparameterize()
        return self.large


def test_hook_that_the_recipe_names_may_return_a_replacement() -> None:
    module = nn.Sequential(NamedByTheRecipe()).eval().requires_grad_(False)

    result, before, after = folded(module, hooks=False, method="melt")

    assert summary(result) == {"melt": 1}
    assert isinstance(module[0], nn.Conv2d)
    torch.testing.assert_close(after, before)


class FailingHook(nn.Identity):
    def fuse(self) -> None:
        raise RuntimeError("no batch norm here")


def test_failing_hook_says_how_to_turn_it_off() -> None:
    with pytest.raises(GraphError, match=r"fuse\(\) failed: no batch norm here; .*hooks: false"):
        folded(nn.Sequential(FailingHook()))


class FeatureFusion(nn.Identity):
    def fuse(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


def test_method_that_needs_arguments_is_no_hook() -> None:
    result, _, _ = folded(nn.Sequential(FeatureFusion()))

    assert result.proofs == ()


@pytest.mark.parametrize("kind", ["StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"])
def test_standardised_weights_become_plain_ones(kind: str) -> None:
    from timm import layers

    torch.manual_seed(0)
    make = getattr(layers, kind)
    padding = {} if "Same" in kind else {"padding": 1}
    module = nn.Sequential(make(3, 4, 3, stride=2, **padding), nn.ReLU(), make(4, 4, 3, **padding))
    module = module.eval().requires_grad_(False)

    result, before, after = folded(module)

    assert summary(result) == {kind: 2}
    assert all(type(part).__name__ in ("Conv2d", "SamePaddedConv2d") for part in (module[0], module[2]))
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("levit_128s", {"img_size": 64}, {"fuse", "summed_linear"}),
        ("repvit_m0_9", {}, {"fuse"}),
        ("mobileone_s0", {}, {"reparameterize"}),
    ],
)
def test_networks_of_timm_fold_and_answer_the_same(name: str, arguments: dict[str, object], expected: set[str]) -> None:
    import timm

    torch.manual_seed(0)
    module = trained(timm.create_model(name, num_classes=5, **arguments))

    result, before, after = folded(module, torch.rand(1, 3, 64, 64))

    assert expected <= set(summary(result))
    assert max(proof.relative_error for proof in result.proofs) <= 1e-5
    # The proofs are in float64; through a whole network, float32 rounding alone reaches 1e-5.
    assert float((after - before).norm() / before.norm()) < 1e-4
