import sys

print("reading the settings")
sys.stdout.flush()
print("cannot find the database: giving up", file=sys.stderr)
sys.exit(3)
