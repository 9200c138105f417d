# Runs one PostgreSQL cluster in directory $1 with the programs in directory $2, and a pgbouncer if asked to. Reads
# commands, one a line, and answers each with its exit status; at the end of its input, which is the end of the test
# process, stops them and removes the directory.
dir=$1 bin=$2 pooler=
cd "$dir" || exit 1

# An answer that nobody is left to read must not end the watchdog before it has cleaned up.
trap : PIPE

init() {
    "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync
}

# autovacuum and fsync are named although on by default: tests rely on them. The sizes keep a dozen clusters side by side
# harmless.
start() {
    "$bin/pg_ctl" start -D "$dir/data" -l "$dir/server.log" -s -w -t 120 -o "-p $1 \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories='' \
        -c max_connections=200 -c shared_buffers=128MB -c min_wal_size=32MB -c max_wal_size=512MB \
        -c fsync=on -c autovacuum=on -c timezone=UTC -c log_line_prefix='%m [%p] '"
}

# An immediate stop is a crash as far as the data goes, and the fastest way out.
stop() {
    "$bin/pg_ctl" stop -D "$dir/data" -s -w -t 60 -m immediate
}

# A pgbouncer on port $1, in front of the server on port $2. Round robin, so that no two transactions of a client have the
# same connection of the server if that can be; and it looks for the server again soon after that was away.
pool() {
    cat >"$dir/pgbouncer.ini" <<END
[databases]
* = host=127.0.0.1 port=$2 user=postgres
[pgbouncer]
pool_mode = transaction
default_pool_size = 8
max_client_conn = 2000
server_round_robin = 1
server_login_retry = 1
listen_addr = 127.0.0.1
listen_port = $1
unix_socket_dir =
auth_type = any
logfile = $dir/pgbouncer.log
END
    rm -f "$dir/pgbouncer.log"
    pgbouncer -q "$dir/pgbouncer.ini" &
    pooler=$!
    until grep -q "listening on 127.0.0.1:$1" "$dir/pgbouncer.log"; do
        kill -0 "$pooler" || return 1
        sleep 0.02
    done
}

while read -r command argument; do
    case $command in
    init) init ;;
    start) start "$argument" ;;
    stop) stop ;;
    pool) pool $argument ;;
    *) false ;;
    esac </dev/null >>"$dir/programs.log" 2>&1
    echo $? 2>/dev/null
done

if [ -n "$pooler" ]; then
    kill "$pooler" 2>/dev/null
fi
if [ -f "$dir/data/postmaster.pid" ]; then
    stop </dev/null >/dev/null 2>&1
fi
cd /
rm -rf "$dir" 2>/dev/null
exit 0
