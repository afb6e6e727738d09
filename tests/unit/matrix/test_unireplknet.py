"""UniRepLKNet. Promises held here: merged equals unmerged, whatever the statistics; the paper's blocks fit the code."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from saccade.models.networks.layers import trained_parameters
from tests.matrix.networks.unireplknet import BRANCHES, DilatedReparamConv, dense_kernel, digits_unireplknet


def _randomise(network: nn.Module) -> None:
    """Statistics and parameters as training would leave them, far from their start."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        for parameter in module.parameters(recurse=False):
            if not parameter.any():
                nn.init.normal_(parameter, std=0.3)


def _merge(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, DilatedReparamConv):
            module.reparameterize()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_merged_network_answers_as_before(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = digits_unireplknet(classes=7)
    _randomise(network)
    network = network.eval().to(dtype)
    images = torch.rand(3, 3, 64, 64, dtype=dtype)
    with torch.no_grad():
        unmerged = network(images)
        _merge(network)
        merged = network(images)
    assert unmerged.std() > 1e-2
    error = ((merged - unmerged).norm() / unmerged.norm()).item()
    assert error < (1e-12 if dtype is torch.float64 else 1e-5)


@pytest.mark.parametrize("kernel", sorted(BRANCHES))
def test_merged_kernel_equals_its_branches(kernel: int) -> None:
    torch.manual_seed(kernel)
    conv = DilatedReparamConv(4, kernel)
    _randomise(conv)
    conv = conv.eval().double()
    images = torch.rand(2, 4, 20, 23, dtype=torch.float64)
    with torch.no_grad():
        unmerged = conv(images)
        conv.reparameterize()
        assert torch.allclose(conv(images), unmerged, rtol=0, atol=1e-12)


def test_merging_leaves_one_convolution_and_may_be_repeated() -> None:
    conv = DilatedReparamConv(4, 13)
    conv.reparameterize()
    conv.reparameterize()
    assert {name for name, _ in conv.named_parameters()} == {"merged.weight", "merged.bias"}
    assert conv.merged is not None
    assert conv.merged.kernel_size == (13, 13)


def test_dilated_kernel_is_a_sparse_large_one() -> None:
    torch.manual_seed(1)
    weight, image = torch.randn(1, 1, 3, 3), torch.randn(1, 1, 17, 17)
    dense = dense_kernel(weight, 3)
    assert dense.shape == (1, 1, 7, 7)
    assert int((dense != 0).sum()) == 9
    expected = functional.conv2d(image, weight, dilation=3, padding=3)
    assert torch.allclose(functional.conv2d(image, dense, padding=3), expected, atol=1e-5)


@pytest.mark.parametrize("kernel", [kernel for kernel in BRANCHES if BRANCHES[kernel]])
def test_every_branch_fits_its_large_kernel(kernel: int) -> None:
    assert all((side - 1) * dilation + 1 <= kernel for side, dilation in BRANCHES[kernel])


def test_merging_shrinks_the_network() -> None:
    network = digits_unireplknet()
    before = trained_parameters(network)
    _merge(network)
    assert trained_parameters(network) < before


def test_training_reaches_every_parameter() -> None:
    torch.manual_seed(2)
    network = digits_unireplknet(width=0.5).train()
    _randomise(network)
    network(torch.rand(4, 3, 64, 64)).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
