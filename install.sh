#!/bin/sh
# Installs Halley from this directory, for one user or as a systemd service. See --help.
#
# It says each thing it does, may be run again at any time, never enables, starts or stops a service, and
# never touches the data. DESTDIR puts everything under another root, without needing to be root.
set -eu
umask 022

usage() {
    cat <<'TEXT'
Usage: ./install.sh [--system] [--prefix DIR] [--binary FILE] [--uninstall] [--dry-run]

  (nothing)      build, and install for this user: ~/.local/bin/halley
  --system       install for the machine, as a systemd service with a user of its own: /usr/local/bin/halley,
                 /etc/systemd/system/halley.service, /etc/halley/halley.toml. Data: /var/lib/halley. Needs root
  --prefix DIR   install under DIR/bin instead
  --binary FILE  install this program instead of building one
  --uninstall    remove what was installed (with --system: by --system), and never the data
  --dry-run      only say what would be done
  --help         show this

DESTDIR in the environment is put before every path, for packages and tests.
TEXT
}

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

# act WORDS COMMAND...: says the words and does it, or with --dry-run only says them.
act() {
    if [ "$dry_run" = yes ]; then
        printf 'would %s\n' "$1"
        return
    fi
    printf '%s\n' "$1"
    shift
    "$@"
}

system=no uninstall=no dry_run=no prefix='' binary=''
while [ $# -gt 0 ]; do
    case $1 in
        --system) system=yes ;;
        --uninstall) uninstall=yes ;;
        --dry-run) dry_run=yes ;;
        --prefix | --binary)
            [ $# -ge 2 ] || fail "$1 needs a value"
            if [ "$1" = --prefix ]; then prefix=$2; else binary=$2; fi
            shift
            ;;
        --help | -h) usage && exit 0 ;;
        *)
            usage >&2
            fail "unknown option $1"
            ;;
    esac
    shift
done

root=${DESTDIR:-}
root=${root%/}
if [ -z "$prefix" ]; then
    if [ "$system" = yes ]; then
        prefix=/usr/local
    else
        [ -n "${HOME:-}" ] || fail "HOME is not set: give --prefix DIR"
        prefix=$HOME/.local
    fi
fi
prefix=${prefix%/}
case $system$prefix in
    yes*[!A-Za-z0-9/._+-]*) fail "--prefix $prefix: only letters, digits and / . _ + - can stand in a unit file" ;;
    yes/* | no/*) ;;
    *) fail "--prefix $prefix: it must be an absolute path" ;;
esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
program=$root$prefix/bin/halley
unit=$root/etc/systemd/system/halley.service
settings=$root/etc/halley/halley.toml

# With DESTDIR the files are for another machine: no user is made here, and no systemd is told.
on_this_machine() { [ "$system" = yes ] && [ -z "$root" ]; }
in_use() { systemctl is-active --quiet halley || systemctl is-enabled --quiet halley 2>/dev/null; }
has_systemd() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }

unit_text() {
    cat <<TEXT
[Unit]
Description=Halley push and message server
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart=$prefix/bin/halley serve
# Reads the configuration again; the log says what can only change by a restart.
ExecReload=/bin/kill -HUP \$MAINPID
User=halley
Group=halley
Environment=HALLEY_DATA=/var/lib/halley
Environment=HALLEY_CONFIG=/etc/halley/halley.toml
StateDirectory=halley
StateDirectoryMode=0700
UMask=0077

Restart=on-failure
RestartSec=2
# A wrong configuration: to start again does not mend it.
RestartPreventExitStatus=2
# A start after a crash or a restore may read the whole journal.
TimeoutStartSec=infinity
# Must be longer than shutdown-s, which is 10 unless /etc/halley/halley.toml says otherwise.
TimeoutStopSec=60
# One file for each held request.
LimitNOFILE=1048576

NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateDevices=yes
PrivateTmp=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
TEXT
}

settings_text() {
    cat <<'TEXT'
# Options of the Halley service; every flag is a key: halley --help, halley config.
# After a change: halley config check --config /etc/halley/halley.toml && systemctl restart halley

#listen = "127.0.0.1:8100"
#admin-listen = "127.0.0.1:8000"
#cors-origin = ["https://app.example"]
# Once there is data: never begin a new log, as on a disk that is not mounted.
#must-exist = true
TEXT
}

# Files are made beside their place and moved: a running program is not written over, and nothing is half. They
# are made under a name that nobody can know before, so that no link of that name is followed.
put() { # put MODE FILE < text
    mkdir -p -- "$(dirname -- "$2")"
    new=$(mktemp -- "$2.XXXXXXXXXX")
    if cat >"$new" && chmod "$1" "$new" && mv -fT -- "$new" "$2"; then return; fi
    rm -f -- "$new"
    fail "cannot write $2"
}
put_program() { put 755 "$program" <"$binary"; }
put_unit() { unit_text | put 644 "$unit"; }
put_settings() {
    settings_text | put 640 "$settings"
    if on_this_machine; then chown root:halley "$settings"; fi
}

make_user() {
    useradd --system --user-group --home-dir /var/lib/halley --no-create-home \
        --shell "$(command -v nologin || echo /bin/false)" halley
}

# Builds the program and finds where it is: only cargo knows where it puts it.
build() {
    command -v cargo >/dev/null ||
        fail "cargo is not installed: get Rust from https://rustup.rs, or give a built program with --binary"
    built=$(cd "$here" && cargo build --release --locked --bin halley --message-format=json-render-diagnostics) ||
        fail "the build failed"
    binary=$(printf '%s\n' "$built" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
}

need_root() {
    if on_this_machine && [ "$dry_run" = no ] && [ "$(id -u)" -ne 0 ]; then
        fail "--system needs root. Build as yourself, install as root:
  cargo build --release --locked
  sudo ./install.sh --system --binary target/release/halley"
    fi
}

install() {
    need_root
    if [ -z "$binary" ]; then
        act "build the program (cargo build --release)" build
    fi
    if [ "$dry_run" = no ]; then
        [ -f "$binary" ] || fail "there is no program at $binary"
        "$binary" version >/dev/null || fail "$binary does not run on this machine"
    fi
    if on_this_machine && ! id halley >/dev/null 2>&1; then
        act "make the system user halley" make_user
    fi
    act "install $program" put_program
    if [ "$system" = yes ]; then
        if [ -e "$settings" ]; then
            printf '%s\n' "keep $settings, which is there"
        else
            act "install $settings" put_settings
        fi
        act "install $unit" put_unit
        if on_this_machine && has_systemd; then
            act "tell systemd (systemctl daemon-reload)" systemctl daemon-reload
        fi
    fi
    [ "$dry_run" = yes ] || next_steps
}

next_steps() {
    if [ "$system" = yes ]; then
        cat <<'TEXT'

Nothing has been started. To start now and at every boot:
  systemctl enable --now halley
After an upgrade:
  systemctl restart halley
A token for a user, made with the service's own secret:
  sudo -u halley halley token USER --data /var/lib/halley
TEXT
        return
    fi
    case ":${PATH:-}:" in
        *":$prefix/bin:"*) printf '\nStart it with: halley --data DIR\n' ;;
        *) printf '\nStart it with: %s --data DIR (%s is not in your PATH)\n' "$program" "$prefix/bin" ;;
    esac
}

# remove FILE: nothing is said of what is not there.
remove() {
    if [ -e "$1" ] || [ -L "$1" ]; then act "remove $1" rm -f -- "$1"; fi
}

uninstall() {
    need_root
    if [ "$system" = yes ]; then
        if on_this_machine && [ "$dry_run" = no ] && has_systemd && in_use; then
            fail "the service runs, or starts at boot. First: systemctl disable --now halley"
        fi
        remove "$unit"
        if on_this_machine && has_systemd; then
            act "tell systemd (systemctl daemon-reload)" systemctl daemon-reload
        fi
        if [ -e "$settings" ]; then
            if settings_text | cmp -s - "$settings"; then
                remove "$settings"
                [ "$dry_run" = yes ] || rmdir -- "$(dirname -- "$settings")" 2>/dev/null || :
            else
                printf '%s\n' "keep $settings, which was changed"
            fi
        fi
        printf '%s\n' "keep the data in $root/var/lib/halley and the user halley, who owns it"
    fi
    if [ -e "$program" ] || [ -L "$program" ]; then
        remove "$program"
    else
        printf '%s\n' "there is no $program: if it was installed with --prefix, give the same"
    fi
}

if [ "$uninstall" = yes ]; then uninstall; else install; fi
