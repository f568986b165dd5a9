"""torchvision, to compare with; if it cannot be imported, the tests that need it are skipped."""

import pytest

try:
    import torchvision as torchvision
    from torchvision.transforms import v2 as v2
except (ImportError, RuntimeError) as error:
    pytest.skip(f"torchvision cannot be imported: {error}", allow_module_level=True)
