"""Runs lines of commands by the circusctl of Circus itself, each as a process would.

Standard input has one line for each command; a line of JSON answers each: [code, output].
`events ENDPOINT TOPIC` subscribes, and `heard` answers with the topics heard since.
"""
import contextlib
import io
import json
import shlex
import sys
import threading

from circus import circusctl
from circus.consumer import CircusConsumer

heard = []


def listen(endpoint, topic):
    for name, text in CircusConsumer([topic], endpoint=endpoint):
        heard.append([name.decode(), json.loads(text)])


def run(words):
    output = io.StringIO()
    sys.argv = ["circusctl"] + words
    code = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            circusctl.main()
        except SystemExit as end:
            code = end.code or 0
    return [code, output.getvalue()]


for line in sys.stdin:
    words = shlex.split(line)
    if words[0] == "events":
        threading.Thread(target=listen, args=words[1:], daemon=True).start()
        answer = []
    elif words[0] == "heard":
        answer = heard
    else:
        answer = run(words)
    print(json.dumps(answer), flush=True)
