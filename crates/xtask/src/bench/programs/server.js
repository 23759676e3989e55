// The smallest server of Node: what peers supervise.
const http = require("node:http");
const path = require("node:path");
const socket = path.join(__dirname, `node-${process.pid}.sock`);
http.createServer((request, response) => response.end("ok\n")).listen(socket);
