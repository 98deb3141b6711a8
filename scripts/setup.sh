# Shared by scripts/start and scripts/test, which source it: system packages, a Python that is new enough, and virtual
# environments that are made once and used again. Everything it prints is for a person who has just cloned the project.

top=$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

# as_root COMMAND...: with sudo when we are not root, and saying so, since it may ask for a password.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    say "With sudo: $*"
    sudo "$@"
  else
    fail "This needs root, and there is no sudo here. Run as root: $*"
  fi
}

has_libfuse2() {
  PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep 'libfuse\.so\.2' >/dev/null  # -q would end ldconfig by SIGPIPE
}

# present NEED: whether the thing that a package brings is here. What counts is the thing, not the package: it may have
# come another way.
present() {
  case $1 in
    libfuse2) has_libfuse2 ;;
    mount-helper) present fusermount3 || present fusermount ;;
    *) PATH="$PATH:/sbin:/usr/sbin" command -v "$1" >/dev/null ;;
  esac
}

# need_packages NEED=PACKAGE...: installs the packages whose NEED (a command, libfuse2 or mount-helper) is not here yet.
need_packages() {
  local pair missing=()
  for pair in "$@"; do
    present "${pair%%=*}" || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null ||
    fail "Please install these with your system's package manager (these are their names in Debian): ${missing[*]}"
  install_packages "${missing[@]}"
}

install_packages() {
  local name names=()
  say "Installing from your distribution: $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null || say "apt-get update failed; trying with the lists as they are."
  for name in "$@"; do
    # Ubuntu 24.04 and Debian 13 renamed it for their 64-bit time_t.
    if [ "$name" = libfuse2 ] && apt-cache show libfuse2t64 >/dev/null 2>&1; then
      name=libfuse2t64
    fi
    names+=("$name")
  done
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${names[@]}" >/dev/null ||
    fail "Could not install: ${names[*]}"
}

# find_python: sets $python to a Python of at least 3.10 that can make virtual environments.
find_python() {
  python=${PYTHON:-python3}
  if ! command -v "$python" >/dev/null; then
    need_packages "$python=python3"
  fi
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "bentofs needs Python 3.10 or newer, but $python is $("$python" -V 2>&1); name another one with PYTHON=..."
  # Debian keeps ensurepip, without which `python3 -m venv` fails, in a package of its own.
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    command -v apt-get >/dev/null || fail "$python lacks the modules venv and ensurepip; please install them."
    install_packages python3-venv
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python still cannot make virtual environments; name another one with PYTHON=..."
  fi
}

# make_venv FOLDER STAMP REQUIREMENT...: a virtual environment that holds the requirements. It is complete, and used
# again as it stands, when its stamp names the same requirements and Python; an interrupted one has no stamp.
make_venv() {
  local folder=$1 stamp=$1/$2 wanted
  shift 2
  wanted=$({ printf '%s\n' "$*"; "$python" -V; [ "$folder" != "$top/.venv" ] || cat "$top/pyproject.toml"; } | sha256sum)
  if "$folder/bin/python" -c '' 2>/dev/null; then
    [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
  else
    rm -rf "$folder"
    "$python" -m venv "$folder" || fail "Could not make the virtual environment $folder."
  fi
  say "Installing into $folder: $*"
  rm -f "$stamp"
  (cd "$top" && "$folder/bin/python" -m pip install -qq --disable-pip-version-check "$@") ||
    fail "pip could not install into $folder: $*"
  printf '%s\n' "$wanted" >"$stamp"
}
