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

# Make .venv with the packages of a lock, or refresh it where the lock or pyproject.toml has changed since.
# `make_environment requirements-dev.lock` is what the tests need, and all that training needs.
make_environment() {
    lock=$1
    stamp=.venv/.installed-$(basename "$lock" .lock)
    if [ -f "$stamp" ] && [ "$stamp" -nt "$lock" ] && [ "$stamp" -nt pyproject.toml ]; then
        return
    fi
    echo "installing into .venv; the first time this takes a few minutes" >&2
    [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
    pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check)
    # torch is not in the locks: its hash differs by source, and its CUDA build brings libraries of its own.
    "${pip[@]}" install "torch==$torch_version"
    "${pip[@]}" install --no-deps --require-hashes --requirement "$lock"
    "${pip[@]}" install --no-deps --no-build-isolation --editable .
    touch "$stamp"
}
