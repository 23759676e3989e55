import socket
import sys

print("listening, and that is all", flush=True)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(sys.argv[1])
listener.listen(16)
taken = []
while True:
    taken.append(listener.accept())
