VERSION = "one\n"
