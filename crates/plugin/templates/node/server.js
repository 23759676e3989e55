"use strict";

const express = require("express");

// The two arguments of the command line: the unix socket to listen on and the
// longest time of one request, in seconds.
const unixSocket = process.argv[2];
const timeout = parseInt(process.argv[3], 10) || 60;

const app = express();

app.get("/{{ name }}", (request, response) => {
  response.send("Hello World from {{ name }}!");
});

const server = app.listen(unixSocket, () => {
  console.log(`ok: process #${process.pid} is listening on ${unixSocket}`);
});
server.setTimeout(timeout * 1000);

// The front keeps connections for a moment: longer here than there, so that it
// is the front that closes an idle one.
server.keepAliveTimeout = 5000;

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  });
}
