"""The text of the systemd units: a template whose instances are the named mounts of the configuration file.

Nothing in a unit may give the daemon a mount namespace of its own (ProtectSystem, ProtectHome, PrivateTmp, ...): nobody
else would see the mount. An ordinary user's service manager sets NoNewPrivileges for all that filters system calls, and
then `fusermount` cannot mount. So a user's unit can be hardened less.
"""

from __future__ import annotations

NAME = "bentofs@.service"
MARK = "# Written by `bentofs systemd install`. `bentofs systemd uninstall` removes it."

_UNIT = """\
{mark}
# Each named mount of {config} is an instance: systemctl {option}enable --now bentofs@NAME

[Unit]
Description=BentoML model store %i, mounted by bentofs
{network}
[Service]
Type=notify
NotifyAccess=main
ExecStart={command} mount --foreground %i
{environment}# A signal ends the daemon within 10 seconds. Its helpers end with it.
KillMode=mixed
TimeoutStartSec=120
TimeoutStopSec=15
# The next start replaces the dead mount of a daemon that was killed. Wrong options stay wrong.
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=2

UMask=0077
LimitCORE=0
{hardening}
[Install]
WantedBy={target}
"""

_NETWORK = """\
Wants=network-online.target
After=network-online.target
"""

_SYSTEM_HARDENING = """\
NoNewPrivileges=yes
# To mount; to read and write stores of any user; to ask a dead mount in its user's name.
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_CHOWN CAP_FOWNER CAP_SETUID CAP_SETGID
DevicePolicy=closed
DeviceAllow=/dev/fuse rw
KeyringMode=private
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service @mount
SystemCallErrorNumber=EPERM
"""

SYSTEM_CONFIG = "/etc/bentofs/config.toml"
USER_CONFIG = "~/.config/bentofs/config.toml"


def unit_text(program: str, *, of_user: bool) -> str:
    """Return the unit. `program`: the path of `bentofs`.

    Raises:
        ValueError: no unit can name such a path.
    """
    return _UNIT.format(
        mark=MARK,
        config=USER_CONFIG if of_user else SYSTEM_CONFIG,
        option="--user " if of_user else "",
        network="" if of_user else _NETWORK,
        command=_quoted(program),
        environment="" if of_user else f"Environment=BENTOFS_CONFIG={SYSTEM_CONFIG}\n",
        hardening="" if of_user else _SYSTEM_HARDENING,
        target="default.target" if of_user else "multi-user.target",
    )


def _quoted(program: str) -> str:
    """Return a program's path as the first word of ExecStart. systemd expands % there, but no variables, and refuses
    quotation marks and backslashes."""
    if any(ord(char) < 0x20 or char in "\"'\\" or "\udc80" <= char <= "\udcff" for char in program):
        raise ValueError("no unit can name this path")
    escaped = program.replace("%", "%%")
    return f'"{escaped}"' if " " in program else escaped
