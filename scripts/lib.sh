# Shared by the scripts here: a virtual environment with the locked versions. Source it in the repository's root.

# The first Python of these that is new enough.
find_python() {
    for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "fasttune needs Python 3.11 or newer with venv; set PYTHON to one" >&2
    exit 5
}

torch_version=2.13.0
torch_cpu_index=https://download.pytorch.org/whl/cpu

# Whether this is Linux without an NVIDIA card, where PyPI's torch would bring 2 GB of CUDA libraries for nothing, and
# PyTorch's own index of smaller builds answers within three seconds.
wants_cpu_torch() {
    [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null &&
        .venv/bin/python - "$torch_cpu_index/torch/" 2>/dev/null <<'PYTHON'
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=3)
PYTHON
}

# Make .venv with the packages of a lock, or refresh it where the lock or pyproject.toml has changed since.
# `make_environment requirements-dev.lock` is what the tests need, and all that training needs.
make_environment() {
    lock=$1
    stamp=.venv/.installed-$(basename "$lock" .lock)
    if [ -f "$stamp" ] && [ "$stamp" -nt "$lock" ] && [ "$stamp" -nt pyproject.toml ]; then
        return
    fi
    [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
    pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check install --no-compile)
    # torch is not in the locks: its hash differs by source, and its CUDA build brings libraries of its own.
    if .venv/bin/python -c "import importlib.metadata as m; assert m.version('torch').split('+')[0] == '$torch_version'" 2>/dev/null; then
        echo "installing packages into .venv" >&2
    elif wants_cpu_torch; then
        echo "installing into .venv: about 190 MB for torch (no NVIDIA card found), 270 MB for the rest" >&2
        "${pip[@]}" --no-deps --index-url "$torch_cpu_index" "torch==$torch_version"
    else
        echo "installing into .venv: torch (190 MB, or 2 GB with CUDA), 270 MB for the rest" >&2
        "${pip[@]}" "torch==$torch_version"
    fi
    # uv downloads and unpacks in parallel. Neither compiles what may never be imported.
    rest=("${pip[@]}")
    if command -v uv >/dev/null; then
        rest=(uv pip install --quiet --python .venv/bin/python)
    fi
    "${rest[@]}" --no-deps --require-hashes --requirement "$lock"
    "${pip[@]}" --no-deps --no-build-isolation --editable .
    # Compiles what training imports, and nothing else, so that the first command starts as fast as the second.
    env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c "import accelerate, datasets, sklearn.metrics, torch, transformers"
    touch "$stamp"
}
