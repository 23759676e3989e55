import time

print("thinking before listening", flush=True)
while True:
    time.sleep(60)
