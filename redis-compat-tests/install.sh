#!/bin/sh
# Installs what the tests need and this machine lacks: redis-server and its tools, Tcl, Python, Node.js, valgrind. Debian and Ubuntu.
set -e
missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need redis-server redis-server
need redis-cli redis-tools
need tclsh tcl
need python3 python3
need node nodejs
need npm npm
need vgdb valgrind
python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv python3-pip"
[ -z "$missing" ] && exit 0
echo "installing:$missing"
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
$as_root apt-get update -qq
# The package must not start a server of its own: tests start theirs.
printf '#!/bin/sh\nexit 101\n' >/tmp/starling-policy-rc.d.$$
if [ ! -e /usr/sbin/policy-rc.d ]; then
    $as_root install -m 755 /tmp/starling-policy-rc.d.$$ /usr/sbin/policy-rc.d
    trap '$as_root rm -f /usr/sbin/policy-rc.d' EXIT
fi
rm -f /tmp/starling-policy-rc.d.$$
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq $missing >/dev/null
