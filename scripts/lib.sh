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

# Make .venv, or refresh it where the lock or pyproject.toml has changed since.
make_environment() {
    stamp=.venv/.installed
    if [ -f "$stamp" ] && [ "$stamp" -nt requirements.lock ] && [ "$stamp" -nt pyproject.toml ]; then
        return
    fi
    echo "installing into .venv; the first time this takes a few minutes" >&2
    [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
    # The lock names every package, the build tool too. Where torch's CUDA build is chosen, it brings its libraries along.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
    touch "$stamp"
}
