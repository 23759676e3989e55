// The smallest app of Express: `server.js SOCKET|PORT`.
const express = require("express");
const app = express();
app.get("*", (request, response) => response.type("text/plain").send("ok\n"));
const server = app.listen(process.argv[2]);
// Longer than a front keeps a connection, so that it is never this end that closes one.
server.keepAliveTimeout = 600_000;
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => process.exit(0));
}
