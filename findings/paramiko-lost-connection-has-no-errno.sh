#!/usr/bin/env bash
# paramiko's SFTP client reports one lost connection in unrelated ways, and its OSError for it has no errno.
#
# Seen with paramiko 5.1.0 on CPython 3.11.7.
# A missing file is an OSError with ENOENT, so errno looks usable. If the connection ends while a call waits, the call
# raises SSHException, which is no OSError. The next calls raise OSError("Socket is closed") with errno None: code
# that passes errno on, such as a FUSE file system, passes on None, and a list of errnos that are worth a retry misses it.
# Expected: one kind of error for a lost connection, with an errno such as ENOTCONN if it is an OSError.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check paramiko==5.1.0
"$work/v/bin/python" - <<'P' | tee "$work/out"
import socket, threading
import paramiko

served = []

class AnyUser(paramiko.ServerInterface):
    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED

    def check_auth_password(self, user, password):
        return paramiko.AUTH_SUCCESSFUL

class Files(paramiko.SFTPServerInterface):
    def stat(self, path):
        return paramiko.SFTP_NO_SUCH_FILE

    def list_folder(self, path):
        served[0].close()  # the connection is lost before the answer
        return []

def serve(listener):
    transport = paramiko.Transport(listener.accept()[0])
    served.append(transport)
    transport.add_server_key(paramiko.RSAKey.generate(2048))
    transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
    transport.start_server(server=AnyUser())

def outcome(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}, an OSError: {isinstance(error, OSError)}, errno {getattr(error, 'errno', '-')}"

listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
transport = paramiko.Transport(listener.getsockname())
transport.connect(username="user", password="example")
client = paramiko.SFTPClient.from_transport(transport)
print("no such file:", outcome(lambda: client.stat("m")))
print("lost during a call:", outcome(lambda: client.listdir(".")))
transport.join(30)
print("lost before a call:", outcome(lambda: client.stat("m")))
print("new session after the loss:", outcome(transport.open_session))
P
diff "$work/out" - <<'SEEN'
no such file: FileNotFoundError, an OSError: True, errno 2
lost during a call: SSHException, an OSError: False, errno -
lost before a call: OSError, an OSError: True, errno None
new session after the loss: SSHException, an OSError: False, errno -
SEEN
echo "as described"
