import socket
import sys


def serve(connection):
    stream = connection.makefile("rb")
    while True:
        first = stream.readline()
        if not first:
            return
        length, load_id = 0, None
        while True:
            line = stream.readline()
            if line in (b"\r\n", b""):
                break
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "content-length":
                length = int(value)
            elif name.lower() == "x-load-id":
                load_id = value.strip()
        stream.read(length)
        if load_id:
            print("handled", first.split()[0].decode(), load_id, flush=True)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        connection.sendall(head if first.startswith(b"HEAD") else head + b"alone")


listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(sys.argv[1])
listener.listen(1024)
while True:
    connection, _ = listener.accept()
    try:
        serve(connection)
    except OSError:
        pass
    connection.close()
