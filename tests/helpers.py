"""What several test files ask."""

import torch
from torch.testing import assert_close


def assert_same_gradients(ours, reference, our_results, reference_results, inputs, tolerance=1e-5):
    """Of all results together, with respect to the inputs and every parameter."""
    upstream = [torch.randn_like(result) for result in reference_results]
    wanted = {f"inputs[{i}]": x for i, x in enumerate(inputs)}
    ours, reference = wanted | dict(ours.named_parameters()), wanted | dict(reference.named_parameters())
    got = torch.autograd.grad(our_results, list(ours.values()), upstream)
    expected = torch.autograd.grad(reference_results, list(reference.values()), upstream)
    assert_close(dict(zip(ours, got)), dict(zip(reference, expected)), rtol=tolerance, atol=tolerance)


def random_double(module):
    """The same module in float64, all its weights random, so that no bias of 0 and no scale of 1 hides a mistake."""
    module = module.double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module
