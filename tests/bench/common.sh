# shellcheck shell=bash
# What tests/bench/run and tests/bench/pool share: a directory that goes away, processes that end with the script, and
# what the memory of processes is.

work=$(mktemp -d)
# Web servers that root starts become another user.
chmod 711 "$work"
started=()
end_all() {
    local pid
    for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap end_all EXIT
trap 'exit 130' INT TERM

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# C programs of this directory, into $work.
compile() {
    local program
    for program; do gcc -O2 -o "$work/$program" "tests/bench/$program.c"; done
}

# A pool that says that it is ready; its master's process ID is in $master. LOG PROGRAM ARGUMENT...
start_pool() {
    local log=$1
    shift
    "$@" 2>"$log" &
    master=$!
    started+=("$master")
    until grep -q ' ready workers=' "$log"; do
        kill -0 "$master" 2>/dev/null || { cat "$log" >&2; fail "the pool did not start: $*"; }
        sleep 0.01
    done
}

# Leaves a process that has ended alone: its number is given to somebody else one day.
forget() {
    local pid rest=()
    for pid in "${started[@]}"; do [ "$pid" = "$1" ] || rest+=("$pid"); done
    started=("${rest[@]}")
}

# Ends a pool, and shows what it has logged beside its start and its end.
stop_pool() {
    local log=$1 pid=$2
    kill -TERM "$pid"
    wait "$pid" || true
    forget "$pid"
    grep -vE ' (listening|ready|TERM:|stopped$|exited status=0|runs as root)' "$log" >&2 || true
}

median() { sort -g | awk '{ value[NR] = $1 } END { print (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'; }

# Private memory and the proportional share of processes, in KiB.
memory() {
    local pid
    for pid; do cat "/proc/$pid/smaps_rollup"; done | awk '
        /^Private_(Clean|Dirty):/ { private += $2 } /^Pss:/ { pss += $2 } END { print private, pss }'
}

# The same of the one that has most of its own.
largest() {
    local pid
    for pid; do memory "$pid"; done | sort -g | tail -n 1
}

# The workers of a master, in $crew.
find_crew() {
    # It ends without a newline, which read takes for a failure.
    # shellcheck disable=SC2034 # For the caller.
    read -ra crew <"/proc/$1/task/$1/children" || true
}
