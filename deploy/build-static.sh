#!/bin/sh
# Builds static programs, for CGI: a process that is started for each request starts faster without a dynamic linker,
# and it runs on any Linux of this architecture, whatever libraries are there.
#
#   deploy/build-static.sh              builds demo and cloakroom, and prints where they are
#   deploy/build-static.sh --bin demo   what follows is passed on to cargo build
#
# Where valgrind is installed the programs are built twice: the first one answers REQUESTS (paths, in turn, with the
# cookie that it hands out), and the second one has the functions that were used side by side, so that a request touches
# fewer pages. ORDER=no leaves that out.
set -eu
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
# musl starts fastest: glibc asks the CPU for all that it can do first, and in a virtual machine each question is slow. A
# static glibc also finds no getrandom(2) where it looks for it, and draws random numbers from /dev/urandom instead.
# `rustup target add x86_64-unknown-linux-musl` installs it; TARGET=... chooses.
musl=${host%-gnu}-musl
if [ -z "${TARGET:-}" ] && [ -e "$(rustc --print target-libdir --target "$musl" 2>/dev/null)" ]; then TARGET=$musl; fi
target=${TARGET:-$host}
case $target in
*-linux-gnu | *-linux-musl) ;;
*)
    echo "build-static.sh: static programs are built on Linux; this is $target" >&2
    exit 2
    ;;
esac
[ "$#" -gt 0 ] || set -- --bin demo --bin cloakroom
requests=${REQUESTS:-/keep /counter /}
directory=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)/$target/release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The names of the functions have a hash of all flags in them, so both builds have the same ones.
order=$directory/order.txt
mkdir -p "$directory"
: >"$order"

# crt-static: libc goes into the program. relocation-model=static: no relocations are left for start-up; the price is
# that the program's code is not put at random addresses. No target-cpu: nothing here gains from it, and the program
# would crash on an older machine. getrandom_backend: the system call itself, which every kernel since 3.17 has; to find
# out whether it is there costs a look through the program's symbols.
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static -C relocation-model=static"
RUSTFLAGS="$RUSTFLAGS --cfg getrandom_backend=\"linux_getrandom\""
# Only lld takes such an order. Rust brings it along; for musl it is not the linker unless it is named.
lld=$(rustc --print sysroot)/lib/rustlib/$host/bin/gcc-ld
if [ "${ORDER:-yes}" = yes ] && [ -d "$lld" ] && command -v valgrind >/dev/null; then
    ordered=yes
    RUSTFLAGS="$RUSTFLAGS -C link-arg=-fuse-ld=lld -C link-arg=-B$lld"
    RUSTFLAGS="$RUSTFLAGS -C link-arg=-Wl,--symbol-ordering-file=$order -C link-arg=-Wl,--no-warn-symbol-ordering"
else
    ordered=no
fi
export RUSTFLAGS

# Builds, and prints the programs. With a target, even the host's own, the flags do not reach build scripts and macros.
build() {
    cargo build --release --locked --target "$target" --message-format json-render-diagnostics "$@" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

# The functions that a program uses to answer REQUESTS, in the order of their first use.
used() {
    mkdir "$work/sessions"
    chmod 700 "$work/sessions"
    cookie=
    for path in $requests; do
        env -i GATEWAY_INTERFACE=CGI/1.1 REQUEST_METHOD=GET SCRIPT_NAME=/app PATH_INFO="$path" REQUEST_URI="/app$path" \
            QUERY_STRING= SERVER_NAME=localhost SERVER_PORT=80 SERVER_PROTOCOL=HTTP/1.1 REMOTE_ADDR=127.0.0.1 \
            HTTP_HOST=localhost HTTP_COOKIE="$cookie" CLOAKROOM_SESSIONS="$work/sessions" \
            valgrind --tool=callgrind --demangle=no --callgrind-out-file="$work/calls" "$1" \
            >"$work/answer" 2>/dev/null </dev/null || return 0
        new=$(sed -n 's/^Set-Cookie: \([^;]*\).*/\1/p' "$work/answer")
        cookie=${new:-$cookie}
        sed -n "s/^c\{0,1\}fn=([0-9]*) \([^']*\).*/\1/p" "$work/calls"
    done
    rm -r "$work/sessions"
}

programs=$(build "$@")
if [ $ordered = yes ]; then
    for program in $programs; do
        used "$program"
    done | awk '!seen[$0]++' >"$order.new"
    mv "$order.new" "$order"
    for program in $programs; do
        rm -f "$program" "$directory"/deps/"$(basename "$program")"-* "$directory"/examples/"$(basename "$program")"-*
    done
    programs=$(build "$@")
fi
printf '%s\n' "$programs"
