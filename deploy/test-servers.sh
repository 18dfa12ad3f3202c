#!/bin/sh
# Installs the real servers that the tests speak to (Mosquitto, InfluxDB, PostgreSQL, Chromium, a Chinese font) from
# the packages of Debian or Ubuntu, when one is missing and we are root. Otherwise says which command does it. Never
# fails: the tests themselves report what they had to skip, and with CI=true count it as a failure. No service is
# started.
set -eu

# Servers live in sbin, which is not on every user's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# Prints the Debian packages that are missing. A program from elsewhere is as good as Debian's.
missing() {
    command -v mosquitto >/dev/null || echo mosquitto
    command -v mosquitto_pub >/dev/null || echo mosquitto-clients
    command -v influxd >/dev/null || echo influxdb
    command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || echo postgresql
    command -v chromium >/dev/null || echo chromium
    if command -v dpkg-query >/dev/null; then
        dpkg-query -W -f '${db:Status-Status}' fonts-noto-cjk 2>/dev/null | grep -qx installed || echo fonts-noto-cjk
    fi
}

install_packages() {
    # Word splitting is wanted: one argument per package.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $packages
}

# Packages ask policy-rc.d whether they may start their service; 101 means no. What stood there comes back afterwards,
# also after an earlier run that was killed before it could tidy up.
policy=/usr/sbin/policy-rc.d
kept=$policy.before-tizhuang
forbid_service_starts() {
    if [ -e "$policy" ] && ! grep -q 'tizhuang test servers' "$policy"; then
        mv "$policy" "$kept"
    fi
    printf '#!/bin/sh\n# tizhuang test servers: no service starts while they are installed\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}
allow_service_starts() {
    rm -f "$policy"
    if [ -e "$kept" ]; then
        mv "$kept" "$policy"
    fi
}

packages=$(missing | tr '\n' ' ')
packages=${packages% }
[ -n "$packages" ] || exit 0

command="apt-get update && apt-get install --no-install-recommends $packages"
if ! command -v apt-get >/dev/null; then
    echo "Real-server tests will be skipped. They need what Debian calls: $packages"
    exit 0
elif [ "$(id -u)" != 0 ]; then
    echo "Real-server tests will be skipped. To enable them, as root: $command"
    exit 0
fi

echo "Servers for the tests: installing $packages"
log=$(mktemp)
trap 'allow_service_starts; rm -f "$log"' EXIT
trap 'exit 130' HUP INT TERM
forbid_service_starts
# The package lists may be absent or too old; only then are they fetched.
if ! install_packages >"$log" 2>&1 && ! { apt-get update && install_packages; } >"$log" 2>&1; then
    tail -n 20 "$log"
    echo "Real-server tests will be skipped. To try again, as root: $command"
fi
# What we brought for the tests does not start with the machine either.
for service in mosquitto influxdb postgresql; do
    case " $packages " in
    *" $service "*) systemctl disable --quiet $service >/dev/null 2>&1 || true ;;
    esac
done
