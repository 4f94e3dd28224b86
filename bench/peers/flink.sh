#!/usr/bin/env bash
# Installs Apache Flink from PyPI into an environment of its own in the user's cache, and prints the path of its Python.
set -euo pipefail
venv=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/flink
version=2.3.0
if [ "$(cat "$venv/version" 2>/dev/null)" != "$version" ]; then
  echo "bench: apache-flink $version is missing: it goes to $venv (1 GB, once)" >&2
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "apache-flink==$version" >&2
  echo "$version" > "$venv/version"
fi
echo "$venv/bin/python"
