import os
import sys
import time

beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "daemon.pid")
print("starting a daemon and leaving", flush=True)
said, says = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(beside + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(beside + ".new", beside)
        os.write(says, b"x")
        os.closerange(0, 256)
        while True:
            time.sleep(60)
    os._exit(0)
os.read(said, 1)
sys.exit(0)
