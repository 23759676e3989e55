// The smallest server of Node: `server.js SOCKET|PORT`.
const http = require("node:http");
const server = http.createServer((request, response) => response.end("ok\n"));
// Longer than a front keeps a connection, so that it is never this end that closes one.
server.keepAliveTimeout = 600_000;
server.listen(process.argv[2]);
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => process.exit(0));
}
