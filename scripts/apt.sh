# Sourced by the other scripts: Debian packages, installed when we may, named when we may not.
# No set -e here: the caller decides.

# missing COMMAND:PACKAGE... -> the packages whose command is not there, on one line
missing() {
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || printf '%s ' "${pair#*:}"
    done
}

# apt_install PACKAGE... -> installs without removing anything; says what to do when it cannot
apt_install() {
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "vmrelay: please install with your system's package manager: $*" >&2
        return 1
    fi
    if [ "$(id -u)" != 0 ]; then
        echo "vmrelay: please run: sudo apt-get install $*" >&2
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    if ! apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends --no-remove "$@" >/dev/null 2>&1; then
        # No package lists yet, or stale ones: the usual state of a fresh machine.
        apt-get -qq -o DPkg::Lock::Timeout=300 update >/dev/null || true
        apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends --no-remove "$@" >/dev/null || {
            echo "vmrelay: apt-get could not install: $*" >&2
            return 1
        }
    fi
}

# install_compiler PYTHON -> a C compiler and the headers of PYTHON, when they are missing
install_compiler() {
    command -v cc >/dev/null 2>&1 || apt_install gcc libc6-dev || return 1
    [ -f "$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
        apt_install "$("$1" -c 'import sys; print("libpython%d.%d-dev" % sys.version_info[:2])')"
}
