# shellcheck shell=bash
# Web servers before the programs that are measured, with the files of deploy/ as an operator adapts them. Both programs
# of a comparison have the same server: WHO is "ours" or "limit", and its address is in $work/SERVER.WHO.

# Debian keeps servers where only root's PATH leads.
PATH=$PATH:/usr/sbin:/sbin
# Nobody else binds to this part of 127.0.0.0/8, so that a port stays free until the server takes it.
ip=127.$((BASHPID / 256 % 256)).$((BASHPID % 256)).1
web_user=
[ "$(id -u)" != 0 ] || web_user=www-data

free_address() {
    local port
    while port=$((20000 + RANDOM % 20000)); (exec 3<>"/dev/tcp/$ip/$port") 2>/dev/null; do :; done
    echo "$ip:$port"
}

# Starts a server whose answers are awaited at these addresses. NAME ADDRESSES COMMAND...
start_server() {
    local name=$1 address tries=0
    local addresses=$2
    shift 2
    # Its environment is as empty as at the start of a service, since Apache hands it on.
    env -i PATH="$PATH" "$@" </dev/null >>"$work/$name.log" 2>&1 &
    started+=($!)
    for address in $addresses; do
        until "$work/load" "$address" 1 0 /hello >/dev/null 2>"$work/$name.tries"; do
            kill -0 "${started[-1]}" 2>/dev/null && ((tries++ < 500)) ||
                { cat "$work/$name"*.log "$work/$name.tries" >&2; fail "$name does not answer"; }
            sleep 0.02
        done
    done
}

# What servers have complained of. Whoever is asked before he listens says so.
complaints() {
    cat "$work"/*error.log "$work"/lighttpd.*.log 2>/dev/null | grep -vE 'server (started|stopped)|:notice\]' >&2 || true
}

start_nginx() {
    local conf=deploy/nginx/cloakroom.conf who temporary
    sed '/^server {/,$d' "$conf" >"$work/site.conf"
    for who in ours limit; do
        free_address >"$work/nginx.$who"
        sed -n '/^server {/,$p' "$conf" | sed "s|listen 80;|listen $(<"$work/nginx.$who");|
            s|/run/cloakroom-demo/scgi.sock|$work/$who.sock|" >>"$work/site.conf"
    done
    {
        # The pool's sockets are open to who has started it.
        [ -z "$web_user" ] || echo "user root;"
        echo "daemon off; worker_processes 1; pid $work/nginx.pid; error_log $work/nginx.error.log warn;"
        echo "events { worker_connections 1024; } http { access_log off; keepalive_requests 100000000;"
        for temporary in client_body proxy fastcgi uwsgi scgi; do echo "${temporary}_temp_path $work/$temporary;"; done
        echo "include $work/site.conf; }"
    } >"$work/nginx.conf"
    start_server nginx "$(cat "$work/nginx.ours") $(cat "$work/nginx.limit")" \
        nginx -p "$work" -e "$work/nginx.start.error.log" -c "$work/nginx.conf"
}

# A directory of sessions for a server's scripts. SERVER WHO
cgi_sessions() {
    mkdir -m 700 "$work/$1.$2.sessions"
    [ -z "$web_user" ] || chown "$web_user:" "$work/$1.$2.sessions"
}

start_apache() {
    local who=$1 address module
    address=$(free_address)
    echo "$address" >"$work/apache.$who"
    cgi_sessions apache "$who"
    {
        for module in mpm_event authz_core alias env cgid; do
            echo "LoadModule ${module}_module /usr/lib/apache2/modules/mod_$module.so"
        done
        [ -z "$web_user" ] || printf 'User %s\nGroup %s\n' "$web_user" "$web_user"
        printf 'ServerRoot "%s"\nDefaultRuntimeDir "%s"\nServerName localhost\n' "$work" "$work"
        printf 'ScriptSock "%s/cgid.%s"\nPidFile "%s/apache.%s.pid"\n' "$work" "$who" "$work" "$who"
        printf 'ErrorLog "%s/apache.%s.error.log"\nLogLevel warn\nListen %s\n' "$work" "$who" "$address"
        printf 'StartServers 1\nThreadsPerChild 25\nMaxKeepAliveRequests 0\nKeepAliveTimeout 60\n'
        sed "s|<VirtualHost \*:80>|<VirtualHost $address>|
            s|/usr/local/lib/cloakroom/demo/|$work/cgi/$who/|; s|/usr/local/lib/cloakroom|$work/cgi|
            s|SetEnv CLOAKROOM_SESSIONS .*|SetEnv SESSDIR \"$work/apache.$who.sessions\"\n    SetEnv PAD $PAD|" deploy/apache/cgi.conf
    } >"$work/apache.$who.conf"
    start_server "apache.$who" "$address" apache2 -DFOREGROUND -f "$work/apache.$who.conf"
}

start_lighttpd() {
    local who=$1 address
    address=$(free_address)
    echo "$address" >"$work/lighttpd.$who"
    cgi_sessions lighttpd "$who"
    mkdir -m 755 "$work/lighttpd.$who.htdocs"
    {
        echo "server.document-root = \"$work/lighttpd.$who.htdocs\""
        echo "server.bind = \"${address%:*}\""
        echo "server.port = ${address##*:}"
        echo "server.max-keep-alive-requests = 65535"
        [ -z "$web_user" ] || printf 'server.username = "%s"\nserver.groupname = "%s"\n' "$web_user" "$web_user"
        sed "s|/usr/local/lib/cloakroom/demo/|$work/cgi/$who/|
            s|\"CLOAKROOM_SESSIONS\" => .*|\"SESSDIR\" => \"$work/lighttpd.$who.sessions\", \"PAD\" => \"$PAD\"|" deploy/lighttpd/cgi.conf
    } >"$work/lighttpd.$who.conf"
    start_server "lighttpd.$who" "$address" lighttpd -D -f "$work/lighttpd.$who.conf"
}
