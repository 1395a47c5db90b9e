import subprocess
import sys

_CODE = """
import sys
import service.app
import service.server
loaded = {name.partition(".")[0] for name in sys.modules} & {"torch", "models", "training", "polars", "pandas"}
sys.exit(f"loaded: {sorted(loaded)}" if loaded else 0)
"""


def test_the_service_loads_neither_torch_nor_training() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
