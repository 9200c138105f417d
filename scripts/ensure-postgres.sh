#!/usr/bin/env bash
# Sees to what the tests need from the system: PostgreSQL's server programs, with --cc a C compiler, without which
# "go test -race" does not link, and with --pgbouncer a pgbouncer. What is missing is installed by apt-get where that is allowed without a password;
# elsewhere it says what to do and exits 1. It starts no server, and a cluster that is on the machine is left as it is.
set -euo pipefail

min_version=15

# version DIR prints the major version of the server programs in DIR, or 0.
version() {
    local out
    if [[ -x $1/initdb && -x $1/pg_ctl ]] && out=$("$1/postgres" --version 2>/dev/null); then
        out=${out#postgres (PostgreSQL) }
        echo "${out%%[^0-9]*}"
    else
        echo 0
    fi
}

# The same places as internal/pgtest looks in.
have_postgres() {
    local dir v on_path
    on_path=$(command -v initdb || true)
    if [[ -n $on_path ]]; then
        on_path=$(dirname "$(readlink -f "$on_path")")
    fi
    for dir in "$on_path" /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin \
        /usr/local/pgsql/bin /Library/PostgreSQL/*/bin; do
        v=$(version "$dir")
        if ((${v:-0} >= min_version)); then
            return 0
        fi
    done
    return 1
}

have_cc() {
    command -v "${CC:-gcc}" >/dev/null || command -v clang >/dev/null
}

have_pgbouncer() {
    PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null
}

as_root=()

can_install() {
    command -v apt-get >/dev/null || return 1
    if ((EUID == 0)); then
        return 0
    fi
    as_root=(sudo -n)
    sudo -n true 2>/dev/null
}

# "env" is there so that the array is never empty: bash before 4.4 calls that an unset variable.
apt() {
    "${as_root[@]:-env}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >&2
}

# Debian makes and starts a cluster for each server package. On a machine that knows nothing of PostgreSQL yet that is
# turned off first; where postgresql-common is there, somebody has already chosen.
install_postgres() {
    local config=/etc/postgresql-common/createcluster.conf
    if ! dpkg-query -W -f '${Status}' postgresql-common 2>/dev/null | grep -q 'install ok installed'; then
        apt install -y --no-install-recommends postgresql-common
        "${as_root[@]:-env}" sed -i 's/^#*create_main_cluster *=.*/create_main_cluster = false/' "$config"
    fi
    apt install -y --no-install-recommends postgresql
}

# Debian starts one, which nobody asked for.
install_pgbouncer() {
    apt install -y --no-install-recommends pgbouncer
    "${as_root[@]:-env}" systemctl disable --now pgbouncer >/dev/null 2>&1 || true
}

need_postgres=false need_cc=false need_pgbouncer=false
have_postgres || need_postgres=true
for option in "$@"; do
    case $option in
    --cc) have_cc || need_cc=true ;;
    --pgbouncer) have_pgbouncer || need_pgbouncer=true ;;
    esac
done
if ! $need_postgres && ! $need_cc && ! $need_pgbouncer; then
    exit 0
fi

if can_install; then
    apt update
    if $need_postgres; then
        echo "installing PostgreSQL for the tests" >&2
        install_postgres
    fi
    if $need_cc; then
        echo "installing a C compiler for the race detector" >&2
        apt install -y --no-install-recommends gcc libc6-dev
    fi
    if $need_pgbouncer; then
        echo "installing pgbouncer for the tests" >&2
        install_pgbouncer
    fi
fi

status=0
if $need_postgres && ! have_postgres; then
    echo "PostgreSQL $min_version or newer is missing, and the tests need its server programs (initdb, pg_ctl, postgres)." >&2
    echo "Debian, Ubuntu: apt-get install postgresql. Fedora: dnf install postgresql-server. macOS: brew install postgresql@17." >&2
    echo "Or set TASKRUNNER_TEST_DATABASE_URL to a server; the tests that restart it need the programs all the same." >&2
    status=1
fi
if $need_cc && ! have_cc; then
    echo "A C compiler is missing, and go test -race needs one. Debian, Ubuntu: apt-get install gcc libc6-dev." >&2
    echo "Without it: make unit." >&2
    status=1
fi
if $need_pgbouncer && ! have_pgbouncer; then
    echo "pgbouncer is missing, and make pooled needs it. Debian, Ubuntu: apt-get install pgbouncer. macOS: brew install pgbouncer." >&2
    status=1
fi
exit $status
